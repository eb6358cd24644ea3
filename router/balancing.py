"""Which replica gets the next request. Pure but for the turn it remembers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from controller.fleet.instance import Instance


class LeastInFlight:
    """The replica with the least in flight; among equals each in its turn."""

    def __init__(self) -> None:
        self._turn = count()

    def __call__(self, ready: Sequence[Instance]) -> Instance:
        if len(ready) == 1:
            return ready[0]
        least = min(instance.in_flight for instance in ready)
        free = [instance for instance in ready if instance.in_flight == least]
        return free[next(self._turn) % len(free)]
