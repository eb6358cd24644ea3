"""Counts in time buckets, in memory that never grows."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence


class Ring:
    """``slots`` buckets of ``step`` seconds for each of ``series``; older ones are forgotten. Times in seconds.

    Single precision: a bucket counts exactly up to 16 million.
    """

    def __init__(self, step: int, slots: int, series: int) -> None:
        self.step = step
        self.slots = slots
        self._values = [array("f", bytes(4 * slots)) for _ in range(series)]
        self._newest: int | None = None

    def add(self, now: float, *amounts: tuple[int, float]) -> None:
        """Add to the bucket of ``now``: pairs of a series and an amount."""
        slot = self._advance(now) % self.slots
        for series, amount in amounts:
            self._values[series][slot] += amount

    def total(self, series: int, now: float, window: float) -> float:
        """The sum over the last ``window`` seconds. The bucket that the window cuts counts by the part inside it."""
        newest = self._advance(now)
        values = self._values[series]
        whole, inside = divmod(window / self.step - (now / self.step - newest), 1.0)
        buckets = min(self.slots, int(whole) + 1)
        amount = sum(self._slice(values, newest, buckets))
        if buckets < self.slots:
            amount += values[(newest - buckets) % self.slots] * inside
        return amount

    def history(self, now: float, buckets: int) -> Iterator[tuple[float, Sequence[float]]]:
        """Yield each of the last ``buckets``, oldest first: its start, and its value in every series."""
        newest = self._advance(now)
        for bucket in range(newest - min(buckets, self.slots) + 1, newest + 1):
            yield bucket * self.step, [values[bucket % self.slots] for values in self._values]

    def _slice(self, values: array[float], newest: int, buckets: int) -> Sequence[float]:
        end = newest % self.slots + 1
        start = end - buckets
        return values[start:end] if start >= 0 else values[start:] + values[:end]

    def _advance(self, now: float) -> int:
        """Empty the buckets that time has passed since the last call; a clock that went back counts as now."""
        bucket = int(now // self.step)
        if bucket == self._newest:  # nearly every call
            return bucket
        if self._newest is None:
            self._newest = bucket
        elif bucket > self._newest:
            for values in self._values:
                if bucket - self._newest >= self.slots:
                    values[:] = array("f", bytes(4 * self.slots))
                else:
                    for passed in range(self._newest + 1, bucket + 1):
                        values[passed % self.slots] = 0.0
            self._newest = bucket
        return self._newest
