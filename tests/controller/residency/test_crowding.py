"""Who makes way in a full host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.residency.sleepers import Sleeper, first_to_sink

HOST, GPU = "host", "gpu0"
FREES = st.dictionaries(st.sampled_from([HOST, GPU]), st.integers(-5, 20))


@pytest.mark.parametrize(
    ("missing", "used_at", "sinks"),
    [
        (5, 9.0, "old"),
        (15, 9.0, "old"),  # the other follows
        (16, 9.0, None),  # to no avail
        (5, 2.0, "old"),
        (11, 2.0, None),  # whoever was used later stays
        (1, 1.0, None),
    ],
)
def test_the_least_recently_used_goes_first(missing: int, used_at: float, sinks: str | None) -> None:
    sleepers = [
        Sleeper("new", {HOST: 5}, 2.0),
        Sleeper("old", {HOST: 10}, 1.0),
        Sleeper("awake", {}, 0.0),
        Sleeper("elsewhere", {GPU: 99}, 0.0),
    ]
    first = first_to_sink({HOST: missing}, used_at, sleepers)
    assert (first.name if first else None) == sinks


@given(
    st.dictionaries(st.sampled_from([HOST, GPU]), st.integers(1, 20), min_size=1),
    st.lists(st.tuples(FREES, st.integers(0, 5)), max_size=5),
)
def test_each_that_sinks_was_used_before_the_next(
    missing: dict[str, int], some: list[tuple[dict[str, int], int]]
) -> None:
    """And before the one for which they do."""
    sleepers = {str(number): Sleeper(str(number), *one) for number, one in enumerate(some)}
    sunk: list[float] = []
    while missing and (gone := first_to_sink(missing, 4.0, list(sleepers.values()))) is not None:
        del sleepers[gone.name]
        left = {place: size - gone.frees.get(place, 0) for place, size in missing.items()}
        missing = {place: size for place, size in left.items() if size > 0}
        sunk.append(gone.used_at)
    assert sunk == sorted(sunk)
    assert all(at < 4.0 for at in sunk)
