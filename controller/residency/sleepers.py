"""Those that sleep with their weights in the host's memory, and who of them drops those first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from controller.residency.memory import Memory, total


@dataclass(frozen=True, slots=True)
class Sleeper:
    """``frees``: what it would give back one level down. ``used_at``: on any clock that all share.

    ``needs``: what it takes on the way to that ``level``, beyond what it holds: it has to wake wholly for that.
    """

    name: str
    frees: Memory
    used_at: float
    model: str = ""
    level: int = 2
    needs: Memory = field(default_factory=dict)


def first_to_sink(missing: Memory, used_at: float, sleepers: Sequence[Sleeper]) -> Sleeper | None:
    """Who makes way for one last used at ``used_at``; None if all that were used before it are not enough."""
    before = [
        one for one in sleepers if one.used_at < used_at and any(one.frees.get(place, 0) > 0 for place in missing)
    ]
    freed = total(one.frees for one in before)
    if any(freed.get(place, 0) < size for place, size in missing.items()):
        return None
    return min(before, key=lambda one: one.used_at)
