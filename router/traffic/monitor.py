"""What was asked of each model, how often and how fast. Memory does not grow with traffic.

A request counts from its arrival until its last byte is sent or its client is gone. Only configured models have an
entry, so nothing that a client sends makes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from router.traffic.histogram import Histogram
from router.traffic.ring import Ring

SECONDS_KEPT = 3600
MINUTES_KEPT = 24 * 60
LONGEST_WINDOW = MINUTES_KEPT * 60
SERIES = ("requests", "successful", "failed", "cancelled", "duration_seconds", "tokens")
REQUESTS, SUCCESSFUL, FAILED, CANCELLED, DURATION, TOKENS = range(len(SERIES))


class Outcome(StrEnum):
    SUCCESSFUL = "successful"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The client left before the end."""


SUCCESS = Outcome.SUCCESSFUL
"""An enumeration is slow to be asked for what is in it."""

STATUS_CLASSES = tuple(f"{first}xx" for first in range(10))
_OUTCOME_SERIES = {Outcome.SUCCESSFUL: SUCCESSFUL, Outcome.FAILED: FAILED, Outcome.CANCELLED: CANCELLED}


class ModelTraffic:
    """One model's figures. ``last_activity`` is on the monotonic clock."""

    def __init__(self, model: str, monitor: TrafficMonitor) -> None:
        self.model = model
        self.total = 0
        self.in_flight = 0
        self.waiting = 0
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.by_class = [0] * len(STATUS_CLASSES)
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.latency = Histogram()
        self.successful_latency = 0.0
        self.ttft = Histogram()
        self.wait = Histogram()
        self.wake_wait = Histogram()
        self.served_by_wake = 0
        self.last_activity: float | None = None
        self._monitor = monitor
        self.now = monitor.clock
        self._rings: tuple[Ring, Ring] | None = None
        self._second = self._second_over = float("-inf")
        self._amounts = [0.0] * len(SERIES)
        """Of the second that is running: they go to the rings when it is over, or when somebody asks."""

    def begin(self, arrived: float) -> Tracked:
        """Count a request in. ``arrived``: when its first byte came, on the monotonic clock."""
        self.last_activity = now = self.now()
        self.total += 1
        self.in_flight += 1
        if now >= self._second_over:
            self._next_second(now)
        self._amounts[REQUESTS] += 1.0
        return Tracked(self, arrived)

    def rate(self, window: float) -> float:
        """Requests per second over the last ``window`` seconds."""
        self._pour()
        if self._rings is None:
            return 0.0
        ring = self._rings[0] if window <= SECONDS_KEPT else self._rings[1]
        return ring.total(REQUESTS, self._monitor.clock(), window) / window

    def history(self, window: int) -> list[dict[str, float]]:
        """The figures of each busy bucket in the last ``window`` seconds, oldest first: of a second, or of a minute."""
        self._pour()
        if self._rings is None:
            return []
        ring = self._rings[0] if window <= SECONDS_KEPT else self._rings[1]
        now = self._monitor.clock()
        offset = self._monitor.wall() - now
        return [
            {"time": start + offset, **dict(zip(SERIES, values, strict=True))}
            for start, values in ring.history(now, -(-window // ring.step) + 1)  # the one the window cuts is in it
            if any(values)
        ]

    def idle_seconds(self) -> float:
        """Since its last activity, or since it became ready if that is later; 0 while a request is in flight."""
        if self.in_flight:
            return 0.0
        since = self._monitor.ready_since(self.model)
        if self.last_activity is not None and self.last_activity > since:
            since = self.last_activity
        return max(0.0, self._monitor.clock() - since)

    @property
    def statuses(self) -> Mapping[str, int]:
        """How many answers of each class there were, of those that there were."""
        return {name: count for name, count in zip(STATUS_CLASSES, self.by_class, strict=True) if count}

    @property
    def last_activity_wall(self) -> float | None:
        """As epoch seconds."""
        if self.last_activity is None:
            return None
        return self._monitor.wall() - (self._monitor.clock() - self.last_activity)

    def _next_second(self, now: float) -> None:
        self._pour()
        self._second, self._second_over = now, now // 1 + 1

    def _pour(self) -> None:
        amounts = [(series, amount) for series, amount in enumerate(self._amounts) if amount]
        if not amounts:
            return
        if self._rings is None:  # a model that is never asked takes no memory
            # One bucket more than a whole window has, for the one that its start cuts.
            self._rings = Ring(1, SECONDS_KEPT + 1, len(SERIES)), Ring(60, MINUTES_KEPT + 1, len(SERIES))
        for ring in self._rings:
            ring.add(self._second, *amounts)
        self._amounts = [0.0] * len(SERIES)


class Tracked:
    """One request. ``end`` counts it out; a second ``end`` changes nothing."""

    __slots__ = ("_ended", "_traffic", "arrived")

    def __init__(self, traffic: ModelTraffic, arrived: float) -> None:
        self._traffic = traffic
        self._ended = False
        self.arrived = arrived

    def first_token(self) -> None:
        seconds = self._traffic.now() - self.arrived
        self._traffic.ttft.add(seconds if seconds > 0.0 else 0.0)

    def wait_begins(self) -> float:
        """It has to wait for a model that is not ready. Returns what ``wait_ends`` wants."""
        self._traffic.waiting += 1
        return self._traffic.now()

    def wait_ends(self, began: float) -> float:
        """Returns the seconds."""
        waited = max(0.0, self._traffic.now() - began)
        self._traffic.waiting -= 1
        self._traffic.wait.add(waited)
        return waited

    def wake_wait_ends(self, began: float, *, served: bool) -> None:
        """As ``wait_ends``, when it was for a wake. ``served``: it has got an instance."""
        self._traffic.wake_wait.add(self.wait_ends(began))
        self._traffic.served_by_wake += served

    def end(self, outcome: Outcome, status: int, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """``status``: the one the client was sent, or would have been."""
        if self._ended:
            return
        self._ended = True
        traffic = self._traffic
        traffic.last_activity = now = traffic.now()
        duration = now - self.arrived
        if duration < 0.0:
            duration = 0.0
        traffic.in_flight -= 1
        traffic.outcomes[outcome] += 1
        traffic.by_class[status // 100] += 1
        traffic.latency.add(duration)
        if now >= traffic._second_over:
            traffic._next_second(now)
        amounts = traffic._amounts
        amounts[DURATION] += duration
        if outcome is SUCCESS:
            amounts[SUCCESSFUL] += 1.0
            traffic.successful_latency += duration
        else:
            amounts[_OUTCOME_SERIES[outcome]] += 1.0
        if prompt_tokens or completion_tokens:
            traffic.prompt_tokens += prompt_tokens
            traffic.completion_tokens += completion_tokens
            amounts[TOKENS] += prompt_tokens + completion_tokens


class TrafficMonitor:
    """``ready_since``: model -> when it last became ready, on ``clock`` (monotonic)."""

    def __init__(
        self,
        models: Iterable[str],
        ready_since: Callable[[str], float],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.ready_since = ready_since
        self.clock = clock
        self.wall = wall
        self.models: dict[str, ModelTraffic] = {}
        self.watch(models)

    def watch(self, models: Iterable[str]) -> None:
        """From now on these. What is known of one that stays is kept."""
        watched = {model: self.models.get(model) or ModelTraffic(model, self) for model in models}
        self.models.clear()
        self.models.update(watched)
