"""The breaker by itself: pure, so any history can be told to it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.circuit import FAILURES, FIRST_PAUSE, LAST_PAUSE, Breaker, Circuit


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(now, "it answered 500")
    assert breaker.circuit is Circuit.OPEN
    return breaker


def test_failures_in_a_row_open_it_and_others_do_not() -> None:
    breaker = Breaker()
    for _ in range(10 * FAILURES):
        breaker.failed(0.0, "no")
        breaker.succeeded()
    assert breaker.admits
    assert [breaker.failed(0.0, "no") for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    assert breaker.circuit is Circuit.OPEN and not breaker.admits and breaker.cause == "no"


def test_after_the_pause_one_request_tries() -> None:
    breaker = opened()
    assert not breaker.rested(FIRST_PAUSE - 0.1) and not breaker.admits
    assert breaker.rested(FIRST_PAUSE) and breaker.admits
    assert breaker.tried() and not breaker.admits
    assert not breaker.tried()


def test_a_trial_that_is_answered_closes_it_and_the_next_failure_opens_it_again() -> None:
    breaker = opened()
    breaker.rested(FIRST_PAUSE)
    breaker.tried()
    assert breaker.began() and breaker.admits
    assert breaker.failed(FIRST_PAUSE, "again") and not breaker.admits


def test_a_trial_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(6):
        began = now
        while not breaker.rested(now):
            now += 1.0
        pauses.append(now - began)
        breaker.tried()
        assert breaker.failed(now, "no")
    assert pauses == [5.0, 10.0, 20.0, 40.0, LAST_PAUSE, LAST_PAUSE]


def test_a_trial_whose_client_left_leaves_the_place_to_the_next() -> None:
    breaker = opened()
    breaker.rested(FIRST_PAUSE)
    breaker.tried()
    assert breaker.untried() and breaker.admits


def test_an_answer_that_was_under_way_when_it_opened_does_not_close_it() -> None:
    breaker = opened()
    assert not breaker.succeeded() and breaker.circuit is Circuit.OPEN


def test_an_answer_closes_it_where_requests_went_there_although_it_was_open() -> None:
    """When it is open everywhere, the first that answers is known from the others at once."""
    breaker = opened()
    assert not breaker.tried() and breaker.circuit is Circuit.OPEN
    assert breaker.succeeded() and breaker.admits
    for _ in range(FAILURES):
        breaker.failed(1.0, "again")
    assert not breaker.succeeded(), "nothing has been asked since it opened again"


def test_silence_that_goes_on_makes_the_pause_longer() -> None:
    breaker = Breaker()
    assert breaker.trip(0.0, "silent")
    assert not breaker.trip(4.0, "silent")
    assert not breaker.rested(2 * FIRST_PAUSE + 3.9)
    assert breaker.rested(2 * FIRST_PAUSE + 4.0)


EVENTS = st.sampled_from(["failed", "trip", "rested", "tried", "untried", "began", "succeeded"])


@given(st.lists(st.tuples(EVENTS, st.floats(0, 30)), max_size=60))
def test_whatever_happens_it_can_be_tried_again_in_a_bounded_time(history: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for event, passed in history:
        now += passed
        match event:
            case "failed":
                breaker.failed(now, "no")
            case "trip":
                breaker.trip(now, "silent")
            case "rested":
                breaker.rested(now)
            case _:
                getattr(breaker, event)()
        assert breaker.troubled or breaker.admits
    breaker.rested(now + LAST_PAUSE)
    breaker.untried()
    assert breaker.admits
