"""Who holds what, and what is free. Pure.

An amount is held from before it is taken until after it is known to be given back, so the sum is never too small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.fleet.state import State
from controller.residency.footprint import Footprint
from controller.residency.memory import NOTHING, Memory, lacks, larger, minus, total


def held(
    footprint: Footprint, state: State, level: int, *, maybe_asleep: bool, granted: bool = False, gone: bool = False
) -> Memory:
    """``level``: of its sleep, or of the one it drains for; 0 if that is not known, or its process is to end.

    ``maybe_asleep``: it is, or is on the way into sleep or out of it, or nobody knows. Weights that come back from the
    host are there until all of them have arrived.
    ``granted``: it may take its memory, and is about to. ``gone``: nobody listens at its address any more.
    """
    if state is State.STOPPED or (state is State.FAILED and gone):
        return footprint.awake if granted else NOTHING
    if state is State.ASLEEP and not granted:
        return footprint.at(level)
    if maybe_asleep or (state is State.DRAINING and level):
        return larger(footprint.awake, footprint.at(level))
    return footprint.awake


def level_that_fits(asleep: Mapping[int, Memory], held: Memory, free: Memory) -> int | None:
    """The first level of ``asleep`` for which there is memory beyond what is ``held``; None if there is for none."""
    return next((level for level, amount in asleep.items() if not lacks(minus(amount, held), free)), None)


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
