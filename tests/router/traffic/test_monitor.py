"""Accounting under any interleaving, on a given clock."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from router.traffic.monitor import LONGEST_WINDOW, ModelTraffic, Outcome, Tracked, TrafficMonitor


class Clock:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def monitor_at(clock: Clock, ready: float = 0.0) -> TrafficMonitor:
    return TrafficMonitor(["one", "two"], lambda model: ready, clock, lambda: clock.now + 1_700_000_000)


class Interleaving(RuleBasedStateMachine):
    """Requests begin, wait, say their first token and end in any order, some of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.one = monitor_at(self.clock).models["one"]
        self.requests: list[tuple[Tracked, bool]] = []
        self.waits: list[tuple[Tracked, float]] = []
        self.ended: list[tuple[float, float]] = []
        self.begun = self.tokens = 0
        self.last_activity = self.clock.now

    @rule(seconds=st.one_of(st.floats(0, 2), st.floats(0, 10_000)))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(upload=st.floats(0, 5))
    def begin(self, upload: float) -> None:
        self.requests.append((self.one.begin(self.clock.now - upload), False))
        self.begun += 1
        self.last_activity = self.clock.now

    @rule(data=st.data())
    def first_token(self, data: st.DataObject) -> None:
        if self.requests:
            data.draw(st.sampled_from(self.requests))[0].first_token()

    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        if self.requests:
            tracked, _ = data.draw(st.sampled_from(self.requests))
            self.waits.append((tracked, tracked.wait_begins()))

    @rule(data=st.data())
    def stop_waiting(self, data: st.DataObject) -> None:
        if self.waits:
            tracked, began = self.waits.pop(data.draw(st.integers(0, len(self.waits) - 1)))
            tracked.wait_ends(began)

    @rule(data=st.data(), outcome=st.sampled_from(Outcome), status=st.sampled_from([200, 404, 499, 503]))
    def end(self, data: st.DataObject, outcome: Outcome, status: int) -> None:
        if not self.requests:
            return
        at = data.draw(st.integers(0, len(self.requests) - 1))
        tracked, ended = self.requests[at]
        tracked.end(outcome, status, 3, 4)
        if not ended:
            self.requests[at] = tracked, True
            self.tokens += 7
            self.last_activity = self.clock.now

    @invariant()
    def it_adds_up(self) -> None:
        one, open_now = self.one, sum(not ended for _, ended in self.requests)
        assert one.total == self.begun == sum(one.outcomes.values()) + one.in_flight
        assert one.in_flight == open_now
        assert one.waiting == len(self.waits)
        assert sum(one.statuses.values()) == one.latency.count == self.begun - open_now
        assert one.prompt_tokens + one.completion_tokens == self.tokens

    @invariant()
    def idle_since_the_last_arrival_or_end(self) -> None:
        if self.begun:
            assert self.one.last_activity == self.last_activity
            assert self.one.idle_seconds() == (0.0 if self.one.in_flight else self.clock.now - self.last_activity)

    @invariant()
    def rates_count_no_more_than_there_was(self) -> None:
        for window in (1, 60, 3600, LONGEST_WINDOW):
            assert 0 <= self.one.rate(window) * window <= self.begun + 1e-6


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(max_examples=30, stateful_step_count=30)


@pytest.mark.parametrize("window", [1, 60, 3599, 3600, 3601, 7200, LONGEST_WINDOW])
@pytest.mark.parametrize("now", [1_000_000.0, 1_000_000.99, 999_999.01, 1_000_030.5])
def test_a_window_holds_all_that_came_in_it(window: int, now: float) -> None:
    """A request just inside the longest windows counts too, and is in the history."""
    step = 1 if window <= 3600 else 60
    for age in (0.0, (window - step) // 2, window - step):
        clock = Clock(now - age)
        one = monitor_at(clock).models["one"]
        one.begin(clock.now).end(Outcome.SUCCESSFUL, 200)
        clock.now = now
        assert one.rate(window) * window == pytest.approx(1.0), age
        assert sum(bucket["requests"] for bucket in one.history(window)) == 1, age


@pytest.mark.parametrize("window", [1, 60, 3600, 3601, LONGEST_WINDOW])
def test_a_window_forgets_what_came_before_it(window: int) -> None:
    """A bucket older than the window's start is not counted."""
    clock = Clock(1_000_000.5)
    one = monitor_at(clock).models["one"]
    one.begin(clock.now)
    clock.now += window + (2 if window <= 3600 else 120)
    assert one.rate(window) == 0
    assert one.history(window) == []


def test_history_has_times_and_sums() -> None:
    """Each busy second as epoch time, with what happened in it."""
    clock = Clock(5000.25)
    one = monitor_at(clock).models["one"]
    tracked = one.begin(clock.now)
    clock.now += 2
    tracked.end(Outcome.FAILED, 502, 5, 0)
    first, last = one.history(60)
    assert (first["time"], last["time"]) == (1_700_005_000, 1_700_005_002)
    assert (first["requests"], first["failed"]) == (1, 0)
    assert (last["requests"], last["failed"], last["duration_seconds"], last["tokens"]) == (0, 1, 2, 5)


def test_long_request_that_ends_after_a_short_one_is_the_last_activity() -> None:
    """Idleness never goes backwards (kvcached put long streams to sleep)."""
    clock = Clock()
    one = monitor_at(clock).models["one"]
    long = one.begin(clock.now)
    clock.now += 10
    one.begin(clock.now).end(Outcome.SUCCESSFUL, 200)
    seen = one.last_activity
    clock.now += 10
    assert one.idle_seconds() == 0
    long.end(Outcome.SUCCESSFUL, 200)
    assert seen is not None
    assert one.last_activity == seen + 10
    assert one.idle_seconds() == 0


def test_model_that_was_never_called_is_idle_since_it_became_ready() -> None:
    """And so is one that woke after its last request."""
    clock = Clock()
    monitor = TrafficMonitor(["one"], lambda model: ready, clock)
    ready = 400.0
    assert monitor.models["one"].idle_seconds() == 600
    monitor.models["one"].begin(clock.now).end(Outcome.SUCCESSFUL, 200)
    clock.now, ready = 2000.0, 1900.0
    assert monitor.models["one"].idle_seconds() == 100


def test_hundreds_of_thousands_of_requests_take_no_memory() -> None:
    """Neither their number nor the time they are spread over: the last 20,000 leave nothing behind."""
    clock = Clock()
    one = monitor_at(clock).models["one"]
    _account(one, clock, 20_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _account(one, clock, 20_000)
        early = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    _account(one, clock, 340_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _account(one, clock, 20_000)
        late = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert one.total == 400_000
    assert max(early, late) < 5_000


def _account(one: ModelTraffic, clock: Clock, requests: int) -> None:
    outcomes = list(Outcome)
    for number in range(requests):
        tracked = one.begin(clock.now)
        clock.now += 0.013
        tracked.first_token()
        tracked.end(outcomes[number % 3], 200 + 100 * (number % 4), 3, 5)
