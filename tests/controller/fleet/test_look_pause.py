"""How often each instance is looked at, however many there are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from controller.fleet.watcher import LOOK_SECONDS, MOST_LOOKS, OPEN_SECONDS, STEADY_SECONDS, look_pause

WANTED = some.sampled_from([STEADY_SECONDS, OPEN_SECONDS, *LOOK_SECONDS.values()])


@given(some.lists(WANTED, min_size=1, max_size=500), some.integers(1, 8))
def test_looks_are_bounded(fleet: list[float], times: int) -> None:
    """Whatever became of a large fleet, no more than twice ``MOST_LOOKS`` a second."""
    fleet *= times
    hurried = sum(wanted < STEADY_SECONDS for wanted in fleet)
    looks = sum(1 / look_pause(wanted, len(fleet), hurried) for wanted in fleet)
    assert looks <= 2 * MOST_LOOKS + 1e-6


@given(WANTED, some.integers(1, 50))
def test_a_small_fleet_is_looked_at_as_often_as_each_wants(wanted: float, size: int) -> None:
    """And one that starts is found at once in a large one too."""
    assert look_pause(wanted, size, size) == wanted
    assert look_pause(0.5, 5000, 10) == 0.5
