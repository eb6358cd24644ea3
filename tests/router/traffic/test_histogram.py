"""The histogram against the sorted list of all values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.traffic.histogram import Histogram

SECONDS = st.floats(1.1e-4, 9.9e3)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(SECONDS, min_size=1, max_size=200), st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0]))
def test_percentile_is_within_two_per_cent(values: list[float], fraction: float) -> None:
    """Of the value at that rank, for every rank."""
    exact = sorted(values)[max(1, math.ceil(fraction * len(values))) - 1]
    assert filled(values).percentile(fraction) == pytest.approx(exact, rel=0.02)


@given(st.lists(st.floats(0, 1e6), max_size=100))
def test_cumulative_counts_are_exact(values: list[float]) -> None:
    """At each bound, how many stay at or below it; what is beyond the last bound is in none."""
    histogram = filled(values)
    bounds = list(histogram.cumulative())
    for bound, count in bounds:
        assert count == sum(value <= bound * (1 + 1e-9) for value in values)
    assert len(bounds) == 25
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))


def test_no_value_no_percentile() -> None:
    """None, for 0 would be a lie."""
    assert Histogram().percentile(0.5) is None


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e-4, 1e4, 1e5, 1e300])
def test_what_is_outside_is_kept_at_the_edge(value: float) -> None:
    """The first or the last bucket."""
    found = filled([value]).percentile(0.5)
    assert found is not None
    assert found == pytest.approx(min(max(value, 1e-4), 1e4), rel=0.04)
