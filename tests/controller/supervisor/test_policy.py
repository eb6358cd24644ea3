"""When what has ended is started again, and what counts as hung."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.state import State
from controller.supervisor.policy import (
    BUDGET,
    HEALTHY_SECONDS,
    LAST_PAUSE,
    SILENT_SECONDS,
    UNHEALTHY_SECONDS,
    Course,
    Row,
    Signs,
    hangs,
)


def test_pauses_double_up_to_the_last_and_then_it_is_given_up() -> None:
    row, pauses = Row(), []
    for _ in range(BUDGET + 1):
        row = row.one_more(0)
        pauses.append(row.pause)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, None]


@given(st.lists(st.floats(0, 2 * HEALTHY_SECONDS), max_size=30))
def test_only_failures_without_health_between_them_are_a_row(lives: list[float]) -> None:
    """However it came: as many as there are since it last was well, and no pause beyond the last."""
    row, expected = Row(), 0
    for seconds in lives:
        row = row.one_more(seconds)
        expected = 1 if seconds >= HEALTHY_SECONDS else expected + 1
        assert row.failures == expected
        assert (row.pause is None) is (expected > BUDGET)
        assert row.pause is None or 0 < row.pause <= LAST_PAUSE


def given_up() -> Course:
    course = Course()
    for _ in range(BUDGET + 1):
        assert not course.given_up
        problem = course.fail("it ended", 0.0)
    assert problem == f"{BUDGET} restarts in a row have not helped: it ended"
    return course


def test_it_is_due_after_the_pause_of_its_row_until_it_is_up() -> None:
    course = Course()
    assert (course.due, course.fail("it ended", 100.0), course.due) == (None, "it ended", 101.0)
    course.fail("it ended", 200.0)
    assert course.due == 202.0
    course.see_up(210.0)
    assert course.due is None


def test_who_comes_up_between_its_failures_is_worth_waiting_for() -> None:
    """Though they are of one row, as long as it is not well for long."""
    course, found = Course(), []
    for up in (False, True, False, False, True):
        if up:
            course.see_up(10.0)
        course.fail("it ended", 20.0)
        found.append((course.row.failures, course.in_vain))
    assert found == [(1, 1), (2, 1), (3, 2), (4, 3), (5, 1)]


def test_a_row_ends_with_health_seen_and_not_with_time_that_passes() -> None:
    """It may have ended at any moment since it was seen last."""
    for seen, failures in ((HEALTHY_SECONDS - 1, 2), (HEALTHY_SECONDS, 1)):
        course = Course()
        course.fail("it ended", 0.0)
        course.see_up(10.0)
        course.see_up(10.0 + seen)
        course.fail("it ended", 10_000.0)
        assert course.row.failures == failures


def test_whoever_starts_what_was_given_up_begins_a_new_row() -> None:
    course = given_up()
    assert course.due is None
    course.see_up(10.0)
    assert not course.given_up
    course.fail("it ended", 20.0)
    assert course.due == 21.0


QUIET = Signs(State.READY, 1e6, 1.0, 0.0)


@pytest.mark.parametrize(
    ("signs", "hung"),
    [
        (QUIET, False),
        (Signs(State.READY, 1e6, UNHEALTHY_SECONDS + 1, 0), True),
        (Signs(State.ASLEEP, 1e6, UNHEALTHY_SECONDS + 1, 0), True),
        (Signs(State.DRAINING, 1e6, UNHEALTHY_SECONDS + 1, 0), False),  # nobody looks meanwhile
        (Signs(State.WAKING, 1e6, UNHEALTHY_SECONDS + 1, 0), False),
        (Signs(State.READY, 1e6, 1, SILENT_SECONDS), False),
        (Signs(State.READY, 1e6, 1, SILENT_SECONDS + 1), True),
        (Signs(State.DRAINING, 1e6, 1, SILENT_SECONDS + 1), True),
        (Signs(State.ASLEEP, 1e6, 1, SILENT_SECONDS + 1), False),
        (Signs(State.STARTING, 1799, 1, 0), False),
        (Signs(State.STARTING, 1801, 1, 0), True),
        (Signs(State.FAILED, UNHEALTHY_SECONDS, 1, 0), False),
        (Signs(State.FAILED, UNHEALTHY_SECONDS + 1, 1, 0), True),
        (Signs(State.STOPPED, 1e6, 1e6, 1e6), False),
        (Signs(State.UNKNOWN, 1e6, 1e6, 1e6), False),
    ],
)
def test_what_hangs(signs: Signs, hung: bool) -> None:
    """Only what has had more than enough time, and of which something should have come."""
    assert (hangs(signs, 1800) is not None) is hung
