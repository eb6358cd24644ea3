"""Who holds what, and what is free. Pure.

An amount is held from before it is taken until after it is known to be given back, so the sum is never too small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.fleet.state import State
from controller.residency.footprint import Footprint
from controller.residency.memory import NOTHING, Memory, larger, total

MOVING = frozenset({State.ASLEEP, State.WAKING, State.FALLING_ASLEEP})
"""On the way from one amount to the other: its weights are in the host until they are back on its GPUs."""

MAY_MOVE = frozenset({State.DRAINING, State.UNKNOWN})
"""The same, if it is known at which level."""


def held(footprint: Footprint, state: State, level: int, *, granted: bool, gone: bool) -> Memory:
    """``level``: of its sleep, of the one it drains for, or of the one a gateway before told it of; 0 if not known.

    ``granted``: it may take its memory, and is about to. ``gone``: nobody listens at its address any more.
    """
    if state is State.STOPPED or (state is State.FAILED and gone):
        return footprint.awake if granted else NOTHING
    if state is State.ASLEEP and not granted:
        return footprint.at(level)
    if state in MOVING or (state in MAY_MOVE and level):
        return larger(footprint.awake, footprint.at(level))
    return footprint.awake


@dataclass(frozen=True, slots=True)
class Books:
    """``capacity``: places of which it is known. ``held``: by instance. ``used``: by all of them."""

    capacity: Memory
    held: Mapping[str, Memory]
    used: Memory

    @classmethod
    def of(cls, capacity: Memory, held: Mapping[str, Memory]) -> Books:
        return cls(capacity, held, total(held.values()))

    @property
    def free(self) -> dict[str, int]:
        """Below 0 where more is held than there is, as when somebody else woke an engine."""
        return {place: size - self.used.get(place, 0) for place, size in self.capacity.items()}

    @property
    def is_overdrawn(self) -> bool:
        return any(size < 0 for size in self.free.values())
