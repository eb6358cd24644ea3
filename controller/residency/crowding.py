"""How deep an instance may sleep, by what is free in the host; and who sleeps deeper, that others need not.

Of those asleep there it is the least recently used.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from controller.fleet.errors import NoHostMemory
from controller.fleet.instance import Instance
from controller.fleet.state import State
from controller.residency.books import Books, level_that_fits
from controller.residency.memory import NOTHING, Memory, gib, lacks, minus, total
from controller.residency.tenants import footprint_of, levels


@dataclass(frozen=True, slots=True)
class Sleeper:
    """``frees``: what it would give back one level down. ``used_at``: on any clock that all share."""

    name: str
    frees: Memory
    used_at: float


def level_of(instance: Instance, books: Books) -> int:
    """The one that is wished for, or the next one down for which there is memory. Raises ``NoHostMemory``."""
    possible = levels(instance)
    level = level_that_fits(possible, books.held[instance.name], books.free)
    if level is not None:
        return level
    if not possible:
        return instance.config.sleep.level
    short = ", ".join(f"{gib(size)} on {place}" for place, size in _missing(instance, books).items())
    raise NoHostMemory(f"{instance.name!r} cannot sleep now: it would take {short} more than there is")


def in_the_way(instance: Instance, books: Books, others: Collection[Instance]) -> str | None:
    """Who should sink one level, so that ``instance`` can sleep at the one that is wished for."""
    missing = _missing(instance, books)
    return first_to_sink(missing, instance.used_at, [_sleeper(one) for one in others]) if missing else None


def first_to_sink(missing: Memory, used_at: float, sleepers: Sequence[Sleeper]) -> str | None:
    """Who makes way for one last used at ``used_at``; None if all that were used before it are not enough."""
    before = [
        one for one in sleepers if one.used_at < used_at and any(one.frees.get(place, 0) > 0 for place in missing)
    ]
    freed = total(one.frees for one in before)
    if any(freed.get(place, 0) < size for place, size in missing.items()):
        return None
    return min(before, key=lambda one: one.used_at).name


def _missing(instance: Instance, books: Books) -> Memory:
    wished = next(iter(levels(instance).values()), NOTHING)
    return lacks(minus(wished, books.held[instance.name]), books.free)


def _sleeper(instance: Instance) -> Sleeper:
    """One that does not sleep frees nothing, nor does one whose engine knows no deeper level."""
    deeper = [level for level in instance.engine.capabilities.levels if level > instance.level]
    if instance.state is not State.ASLEEP or not deeper:
        return Sleeper(instance.name, NOTHING, instance.used_at)
    footprint = footprint_of(instance)
    return Sleeper(instance.name, minus(footprint.at(instance.level), footprint.at(deeper[0])), instance.used_at)
