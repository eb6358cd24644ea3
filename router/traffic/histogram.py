"""Durations in buckets of equal ratio: percentiles within two per cent, in memory that never grows."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator

FIRST_EXPONENT, LAST_EXPONENT = -4, 4
"""From 0.1 ms to 10,000 s; what is below counts in the first bucket, what is above in the last."""

PER_DECADE = 60
BUCKETS = (LAST_EXPONENT - FIRST_EXPONENT) * PER_DECADE + 2
EXPORTED_PER_DECADE = 3


class Histogram:
    """Seconds. Bucket ``i`` holds what is at most ``edge(i)`` and more than ``edge(i - 1)``."""

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self.count = 0
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.sum += seconds
        self._counts[bisect_left(_EDGES, seconds)] += 1

    def percentile(self, fraction: float) -> float | None:
        """The value that ``fraction`` of all stay at or below; None when there is none yet."""
        if not self.count:
            return None
        rank = max(1, math.ceil(fraction * self.count))
        for index, count in enumerate(self._counts):
            rank -= count
            if rank <= 0:
                return edge(index - 0.5)
        return edge(BUCKETS - 1)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Yield the bounds that Prometheus is given, and how many stay at or below each. Exact."""
        every = PER_DECADE // EXPORTED_PER_DECADE
        below = 0
        for index, count in enumerate(self._counts):
            below += count
            if index % every == 0:
                yield edge(index), below


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """As Prometheus wants them."""
    bounds = [(f"{bound:.3g}", float(count)) for bound, count in histogram.cumulative()]
    return [*bounds, ("+Inf", float(histogram.count))]


def edge(index: float) -> float:
    return float(10.0 ** (FIRST_EXPONENT + index / PER_DECADE))


_EDGES = [edge(index) for index in range(BUCKETS - 1)]
