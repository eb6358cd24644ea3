"""Which replica gets the next request. Pure but for the turn it remembers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from operator import attrgetter

from controller.fleet.instance import Instance


class LeastInFlight:
    """The replica with the least in flight; among equals each in its turn."""

    def __init__(self) -> None:
        self._turn = count()

    def __call__(self, ready: Sequence[Instance]) -> Instance:
        if len(ready) == 1:
            return ready[0]
        first = next(self._turn) % len(ready)
        return min((*ready[first:], *ready[:first]), key=_in_flight)


_in_flight = attrgetter("in_flight")
