"""The ring against a list of everything that happened."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.traffic.ring import Ring

STEP, SLOTS = 2, 8
PAUSES = st.one_of(st.floats(0, 3), st.floats(0, 40), st.just(0.0), st.sampled_from([2.0, 16.0, 1000.0, 1e7]))
EVENTS = st.lists(st.tuples(PAUSES, st.integers(0, 1), st.integers(1, 5)), max_size=40)


def replay(events: list[tuple[float, int, int]], start: float) -> tuple[Ring, list[tuple[float, int, int]], float]:
    """A ring that saw these, what it saw with times, and the time of the last."""
    ring, seen, now = Ring(STEP, SLOTS, 2), [], start
    for pause, series, amount in events:
        now += pause
        ring.add(now, (series, amount))
        seen.append((now, series, amount))
    return ring, seen, now


@given(EVENTS, PAUSES, st.floats(STEP, STEP * SLOTS * 2), st.floats(0, 1e6))
def test_total_is_exact_to_the_bucket_that_the_window_cuts(
    events: list[tuple[float, int, int]], pause: float, window: float, start: float
) -> None:
    """Whole buckets count whole, the cut one by the part inside, what was overwritten not at all."""
    ring, seen, now = replay(events, start)
    now += pause
    newest = int(now // STEP)
    expected = 0.0
    for when, series, amount in seen:
        bucket = int(when // STEP)
        inside = min(1.0, max(0.0, ((bucket + 1) * STEP - (now - window)) / STEP))
        if series == 0 and bucket > newest - SLOTS:
            expected += amount * inside
    assert ring.total(0, now, window) == pytest.approx(expected, abs=1e-3)


@given(EVENTS, PAUSES, st.integers(1, SLOTS * 2), st.floats(0, 1e6))
def test_history_is_each_bucket_oldest_first(
    events: list[tuple[float, int, int]], pause: float, buckets: int, start: float
) -> None:
    """Every bucket asked for that is still kept, with its start and the sums of what fell into it."""
    ring, seen, now = replay(events, start)
    now += pause
    newest = int(now // STEP)
    expected = [
        (bucket * STEP, [sum(a for when, s, a in seen if s == series and when // STEP == bucket) for series in (0, 1)])
        for bucket in range(newest - min(buckets, SLOTS) + 1, newest + 1)
    ]
    assert [(start, list(values)) for start, values in ring.history(now, buckets)] == expected


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=30))
def test_clock_that_goes_back_loses_nothing(moves: list[float]) -> None:
    """What comes while the clock is behind counts in the newest bucket."""
    ring, now, latest = Ring(STEP, 200, 1), 1000.0, 1000.0
    for move in moves:
        now = max(0.0, now + move)
        latest = max(latest, now)
        ring.add(now, (0, 1.0))
    kept = [values[0] for _, values in ring.history(latest, 200)]
    if latest - 1000 < STEP * 150:
        assert sum(kept) == len(moves)
    assert all(value >= 0 and math.isfinite(value) for value in kept)
