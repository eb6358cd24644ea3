"""What was measured: distributions that merge and do not grow, and the tally of one client."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchmarks.answer import Answer

WIDTH = math.log(1.01)
"""Buckets are one per cent wide, so a percentile is right within half a per cent."""

SMALLEST = 1e-6
FRACTIONS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


class Distribution:
    """Seconds. Count, sum, least and largest are exact."""

    __slots__ = ("_buckets", "count", "largest", "least", "sum")

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self.least = math.inf
        self.largest = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self.count += 1
        self.sum += seconds
        if seconds < self.least:
            self.least = seconds
        if seconds > self.largest:
            self.largest = seconds
        self._buckets[int(math.log(seconds / SMALLEST) / WIDTH) if seconds > SMALLEST else 0] += 1

    def percentile(self, fraction: float) -> float | None:
        """The value that ``fraction`` of all stay at or below; None when there is none yet."""
        rank = max(1, math.ceil(fraction * self.count))
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                middle = SMALLEST * math.exp((bucket + 0.5) * WIDTH)
                return min(max(middle, self.least), self.largest)
        return None

    @property
    def mean(self) -> float | None:
        return self.sum / self.count if self.count else None

    def merge(self, other: Distribution) -> None:
        self.count += other.count
        self.sum += other.sum
        self.least = min(self.least, other.least)
        self.largest = max(self.largest, other.largest)
        self._buckets.update(other._buckets)

    def summary(self) -> dict[str, float | None]:
        """What people read, in seconds."""
        found = {name: self.percentile(fraction) for name, fraction in FRACTIONS.items()}
        return {"mean": self.mean, **found, "max": self.largest if self.count else None}

    def dump(self) -> dict[str, Any]:
        least = self.least if self.count else None
        buckets = sorted(self._buckets.items())
        return {"count": self.count, "sum": self.sum, "least": least, "largest": self.largest, "buckets": buckets}

    @classmethod
    def restore(cls, dumped: Mapping[str, Any]) -> Distribution:
        found = cls()
        found.count, found.sum, found.largest = dumped["count"], dumped["sum"], dumped["largest"]
        found.least = math.inf if dumped["least"] is None else dumped["least"]
        found._buckets.update(dict(dumped["buckets"]))
        return found


COUNTS = ("finished", "abandoned", "prompt_tokens", "completion_tokens", "chunks")
DISTRIBUTIONS = ("latency", "ttft", "itl", "lateness")


class Tally:
    """``errors`` by what was wrong. ``latency`` and ``ttft`` count from the moment a request was meant to start.

    ``itl``: between two chunks with text. ``lateness``: from the moment a request was meant to start to the moment it
    was written, which is the client's own and the connection's doing. ``abandoned``: cut off by the client itself.
    """

    __slots__ = (*COUNTS, *DISTRIBUTIONS, "errors")

    def __init__(self) -> None:
        self.finished = self.abandoned = 0
        self.prompt_tokens = self.completion_tokens = self.chunks = 0
        self.errors: Counter[str] = Counter()
        self.latency, self.ttft, self.itl, self.lateness = (Distribution() for _ in DISTRIBUTIONS)

    @property
    def failed(self) -> int:
        return self.errors.total()

    @property
    def successful(self) -> int:
        return self.finished - self.failed

    def take(self, answer: Answer, intended: float) -> None:
        self.finished += 1
        self.chunks += answer.chunks
        if answer.usage is not None:
            self.prompt_tokens += answer.usage.prompt_tokens
            self.completion_tokens += answer.usage.completion_tokens or 0
        if answer.sent is not None:
            self.lateness.add(answer.sent - intended)
        if answer.problem is not None:
            self.errors[answer.problem] += 1
            return
        self.latency.add(answer.ended - intended)
        if answer.first_token is not None:
            self.ttft.add(answer.first_token - intended)
        add = self.itl.add
        for gap in answer.gaps:
            add(gap)

    def merge(self, other: Tally) -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in DISTRIBUTIONS:
            getattr(self, name).merge(getattr(other, name))
        self.errors.update(other.errors)

    def dump(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in COUNTS}
        return {**counts, "errors": dict(self.errors), **{name: getattr(self, name).dump() for name in DISTRIBUTIONS}}

    @classmethod
    def restore(cls, dumped: Mapping[str, Any]) -> Tally:
        found = cls()
        for name in COUNTS:
            setattr(found, name, dumped[name])
        for name in DISTRIBUTIONS:
            setattr(found, name, Distribution.restore(dumped[name]))
        found.errors.update(dumped["errors"])
        return found


_WIRE_COUNTS = ("sent", "successful", "successful_seconds", "prompt_tokens", "completion_tokens")


class Wire:
    """All that reached the server, warm-up too, timed from the moment it was written: what the router sees."""

    __slots__ = (*_WIRE_COUNTS, "first_byte", "latency")

    def __init__(self) -> None:
        self.sent = self.successful = self.prompt_tokens = self.completion_tokens = 0
        self.successful_seconds = 0.0
        self.latency, self.first_byte = Distribution(), Distribution()

    def take(self, answer: Answer) -> None:
        if answer.sent is None:
            return
        self.sent += 1
        if answer.problem is None:
            self.successful += 1
            self.successful_seconds += answer.ended - answer.sent
        if answer.usage is not None:
            self.prompt_tokens += answer.usage.prompt_tokens
            self.completion_tokens += answer.usage.completion_tokens or 0
        self.latency.add(answer.ended - answer.sent)
        if answer.first_byte is not None:
            self.first_byte.add(answer.first_byte - answer.sent)

    def dump(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in _WIRE_COUNTS}
        return {**counts, "latency": self.latency.dump(), "first_byte": self.first_byte.dump()}

    @classmethod
    def restore(cls, dumped: Mapping[str, Any]) -> Wire:
        found = cls()
        for name in _WIRE_COUNTS:
            setattr(found, name, dumped[name])
        found.latency = Distribution.restore(dumped["latency"])
        found.first_byte = Distribution.restore(dumped["first_byte"])
        return found
