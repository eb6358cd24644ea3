"""Which instances are to have an adapter. Pure: chance comes in from outside."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controller.adapters.spec import BIN_PACK, LEAST_ADAPTERS, LEAST_LOAD, RANDOM


@dataclass(frozen=True, slots=True)
class Seat:
    """One instance that could take an adapter.

    ``adapters``: how many it has or is to have. ``slots``: how many the engine keeps ready to use (it swaps beyond
    that); ``most``: how many it can hold at all; None where that is not known. ``load``: requests in flight.
    """

    instance: str
    awake: bool = True
    adapters: int = 0
    slots: int | None = None
    most: int | None = None
    load: int = 0

    @property
    def open(self) -> bool:
        return self.most is None or self.adapters < self.most

    @property
    def free(self) -> bool:
        return self.slots is None or self.adapters < self.slots


_KEYS: Mapping[str, Callable[[Seat, random.Random], float]] = {
    LEAST_ADAPTERS: lambda seat, _: seat.adapters,
    BIN_PACK: lambda seat, _: -seat.adapters,
    LEAST_LOAD: lambda seat, _: seat.load,
    RANDOM: lambda _, chance: chance.random(),
}


def choose(policy: str, seats: Sequence[Seat], count: int, chance: random.Random) -> tuple[str, ...]:
    """At most ``count`` of ``seats``, best first: awake before asleep, those with a free slot first, then by policy."""
    key = _KEYS[policy]
    ranked = sorted(
        ((not seat.awake, not seat.free, key(seat, chance), index) for index, seat in enumerate(seats) if seat.open)
    )
    return tuple(seats[index].instance for *_, index in ranked[: max(0, count)])


def surplus(policy: str, seats: Sequence[Seat], count: int) -> tuple[str, ...]:
    """The ``count`` of ``seats`` to be given up first: those that the policy would have chosen last."""
    order = choose(policy, seats, len(seats), random.Random(0))
    outside = [seat.instance for seat in seats if seat.instance not in order]
    return tuple([*outside, *reversed(order)][: max(0, count)])
