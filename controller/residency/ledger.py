"""The books of a fleet, kept from one look to the next: only what has changed is reckoned anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from controller.fleet.instance import Instance
from controller.residency.books import Books, held
from controller.residency.memory import Memory
from controller.residency.tenants import footprint_of


class Ledger:
    """Amounts are whole bytes: sums that are added to and taken from stay exact."""

    def __init__(self) -> None:
        self._grounds: dict[str, tuple[Any, ...]] = {}
        self._held: dict[str, Memory] = {}
        self._used: dict[str, int] = {}

    def books(self, instances: Mapping[str, Instance], capacity: Memory, granted: Collection[str]) -> Books:
        """``granted``: who is about to wake."""
        for name in self._held.keys() - instances.keys():
            del self._grounds[name]
            self._add(self._held.pop(name), -1)
        for name, one in instances.items():
            taken, state = name in granted, one.engine_state
            grounds = (state, one.level, one.maybe_asleep, one.gone, taken, one.config.footprint, one.measured)
            if self._grounds.get(name) != grounds:
                self._grounds[name] = grounds
                self._add(self._held.get(name, {}), -1)
                self._held[name] = held(
                    footprint_of(one), state, one.level, maybe_asleep=one.maybe_asleep, granted=taken, gone=one.gone
                )
                self._add(self._held[name], 1)
        return Books(capacity, dict(self._held), dict(self._used))

    def _add(self, amount: Memory, sign: int) -> None:
        for place, size in amount.items():
            self._used[place] = self._used.get(place, 0) + sign * size
