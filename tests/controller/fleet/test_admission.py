"""What a request does that finds its model in some state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.admission import GIVE_UP_AFTER, PATIENCE, Act, Decision, View, decide
from controller.fleet.errors import (
    DeadlinePassed,
    GivenUp,
    KeptAsleep,
    StoppedByHand,
    Unavailable,
    Unreachable,
    WakeFailed,
)
from controller.fleet.state import Hold, State

NOW, DEADLINE = 100.0, 110.0
UNKNOWN, STARTING, READY = View(State.UNKNOWN), View(State.STARTING), View(State.READY)
DRAINING, FALLING, WAKING = View(State.DRAINING), View(State.FALLING_ASLEEP), View(State.WAKING)
ASLEEP = View(State.ASLEEP, wake_at=NOW)
KEPT = replace(ASLEEP, wakes_on_request=False)
FAILED = View(State.FAILED, looked_at=NOW, problem="connection refused")
ATTENDED = replace(FAILED, attended_until=NOW + 4)
STOPPED = View(State.STOPPED)
BY_HAND = replace(STOPPED, hold=Hold.BY_HAND)
GIVEN_UP = replace(FAILED, hold=Hold.GIVEN_UP)
STALE = replace(FAILED, looked_at=NOW - PATIENCE - 0.1)
EARLY = replace(ASLEEP, wake_at=NOW + 4)
TOO_EARLY = replace(ASLEEP, wake_at=DEADLINE + 4)
BACKING_OFF = replace(EARLY, wake_failures=1, problem="no memory")
HOPELESS = replace(EARLY, wake_failures=GIVE_UP_AFTER, problem="no memory")

TABLE: list[tuple[str, Sequence[View], Decision | type[Unavailable]]] = [
    ("ready", [READY], Decision(Act.SERVE, (0,))),
    ("all that are ready", [READY, ASLEEP, READY], Decision(Act.SERVE, (0, 2))),
    ("ready, though another drains", [DRAINING, READY], Decision(Act.SERVE, (1,))),
    ("draining", [DRAINING], Decision(Act.CALL_OFF, (0,))),
    ("draining, though another sleeps", [ASLEEP, DRAINING, DRAINING], Decision(Act.CALL_OFF, (1,))),
    ("asleep", [ASLEEP], Decision(Act.WAKE, (0,))),
    ("one of two that sleep", [EARLY, ASLEEP], Decision(Act.WAKE, (1,))),
    ("asleep, another failed", [FAILED, ASLEEP], Decision(Act.WAKE, (1,))),
    ("asleep, another starting", [STARTING, ASLEEP], Decision(Act.WAKE, (1,))),
    ("asleep, another falling asleep", [FALLING, ASLEEP], Decision(Act.WAKE, (1,))),
    ("asleep, another already woken", [WAKING, ASLEEP], Decision(Act.WAIT)),
    ("asleep for a while yet", [EARLY], Decision(Act.WAIT, (0,), NOW + 4)),
    ("asleep beyond the deadline", [TOO_EARLY], Unavailable),
    ("a wake failed", [BACKING_OFF], Decision(Act.WAIT, (0,), NOW + 4)),
    ("a wake failed, and the next is too late", [replace(BACKING_OFF, wake_at=DEADLINE + 1)], WakeFailed),
    ("wakes fail again and again", [HOPELESS], WakeFailed),
    ("wakes failed, and it is time again", [replace(HOPELESS, wake_at=NOW)], Decision(Act.WAKE, (0,))),
    ("wakes fail, another sleeps", [HOPELESS, ASLEEP], Decision(Act.WAKE, (1,))),
    ("asleep, and not to be woken", [KEPT], KeptAsleep),
    ("asleep, not to be woken, another failed", [FAILED, KEPT], KeptAsleep),
    ("asleep, not to be woken, another may", [KEPT, ASLEEP], Decision(Act.WAKE, (1,))),
    ("asleep, not to be woken, another starting", [KEPT, STARTING], Decision(Act.WAIT)),
    ("not to be woken, but waking", [replace(WAKING, wakes_on_request=False)], Decision(Act.WAIT)),
    ("falling asleep", [FALLING], Decision(Act.WAIT)),
    ("waking", [WAKING], Decision(Act.WAIT)),
    ("starting", [STARTING], Decision(Act.WAIT)),
    ("unknown", [UNKNOWN], Decision(Act.WAIT)),
    ("failed, another starting", [FAILED, STARTING], Decision(Act.WAIT)),
    ("failed just now", [FAILED], Unreachable),
    ("failed, and seen to", [ATTENDED], Decision(Act.WAIT, until=NOW + 4)),
    ("failed, and seen to no more", [replace(ATTENDED, attended_until=NOW)], Unreachable),
    ("stopped", [STOPPED], Decision(Act.WAKE, (0,))),
    ("stopped, another sleeps", [STOPPED, ASLEEP], Decision(Act.WAKE, (1, 0))),
    ("stopped by hand", [BY_HAND], StoppedByHand),
    ("stopped by hand, another stopped", [BY_HAND, STOPPED], Decision(Act.WAKE, (1,))),
    ("stopped by hand, another failed", [BY_HAND, FAILED], Unreachable),
    ("stopped by hand, another starting", [BY_HAND, STARTING], Decision(Act.WAIT)),
    ("given up", [GIVEN_UP], GivenUp),
    ("given up, another stopped by hand", [BY_HAND, GIVEN_UP], GivenUp),
    ("given up, another failed a while ago", [GIVEN_UP, STALE], Decision(Act.LOOK, (1,))),
    ("given up, another not to be woken", [GIVEN_UP, KEPT], KeptAsleep),
    ("failed a while ago", [STALE], Decision(Act.LOOK, (0,))),
    ("one failed just now, one a while ago", [FAILED, STALE], Decision(Act.LOOK, (1,))),
]


@pytest.mark.parametrize(("replicas", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(replicas: Sequence[View], expected: Decision | type[Unavailable]) -> None:
    """Each situation has the decision, or the error, that the table says."""
    if isinstance(expected, Decision):
        assert decide("m", replicas, NOW, DEADLINE) == expected
        return
    with pytest.raises(Unavailable) as caught:
        decide("m", replicas, NOW, DEADLINE)
    assert caught.type is expected


@pytest.mark.parametrize("view", [ASLEEP, WAKING, FALLING, STARTING, UNKNOWN, FAILED, KEPT])
def test_nothing_waits_beyond_its_deadline(view: View) -> None:
    """Once the deadline has passed, whatever is not ready is an error."""
    with pytest.raises(DeadlinePassed):
        decide("m", [view], DEADLINE, DEADLINE)


@pytest.mark.parametrize("view", [READY, DRAINING])
def test_a_deadline_does_not_keep_from_what_is_awake(view: View) -> None:
    """A model that can serve at once serves, however late it is."""
    assert decide("m", [view], DEADLINE + 1, DEADLINE).act in (Act.SERVE, Act.CALL_OFF)


def test_errors_say_when_to_come_again() -> None:
    """The remaining sleep, or the pause before the next wake, becomes Retry-After."""
    for view, seconds in ((TOO_EARLY, 14.0), (HOPELESS, 4.0)):
        with pytest.raises(Unavailable) as caught:
            decide("m", [view], NOW, DEADLINE)
        assert caught.value.retry_after == seconds
    with pytest.raises(WakeFailed, match="no memory"):
        decide("m", [HOPELESS], NOW, DEADLINE)


TIMES = st.floats(0, 1000)
VIEWS = st.builds(
    View,
    state=st.sampled_from(State),
    wakes_on_request=st.booleans(),
    wake_at=TIMES | st.just(float("-inf")),
    wake_failures=st.integers(0, 5),
    looked_at=TIMES | st.just(float("-inf")),
    firm=st.booleans(),
)


@given(st.lists(VIEWS, min_size=1, max_size=5), TIMES, TIMES)
def test_it_always_decides_or_says_why_not(replicas: list[View], now: float, deadline: float) -> None:
    """Serves only what is ready, wakes only what may be woken now, and never waits for a moment that has passed."""
    try:
        decision = decide("m", replicas, now, deadline)
    except Unavailable as error:
        assert not any(view.state is State.READY for view in replicas)
        assert not any(view.state is State.DRAINING and not view.firm for view in replicas)
        assert error.retry_after is None or error.retry_after > 0
        return
    chosen = [replicas[index] for index in decision.replicas]
    assert decision.until > now
    if decision.act is Act.SERVE:
        assert chosen == [view for view in replicas if view.state is State.READY] != []
    elif decision.act is Act.CALL_OFF:
        assert [(view.state, view.firm) for view in chosen] == [(State.DRAINING, False)]
    elif decision.act is Act.WAKE:
        assert chosen
        assert all(view.wakes_on_request and view.wake_at <= now for view in chosen)
        assert all(view.state in (State.ASLEEP, State.STOPPED) for view in chosen)
        starting = any(view.state is State.STARTING for view in replicas)
        assert not starting or all(view.state is State.ASLEEP for view in chosen)
        assert all(view.state is not State.WAKING for view in replicas)
    elif decision.act is Act.LOOK:
        assert chosen
        assert all(view.state is State.FAILED and now - view.looked_at > PATIENCE for view in chosen)
    else:
        assert now < deadline and (decision.until <= deadline or decision.until == float("inf"))
