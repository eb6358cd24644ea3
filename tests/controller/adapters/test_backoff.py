"""A first try, five retries, and then another instance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.backoff import Tries, failed
from controller.adapters.failures import retriable
from runtime.adapters import UnfitAdapter
from runtime.downloads.errors import AccessDenied, NotFound, SourceUnreachable
from runtime.engines.base import EngineError, EngineRefused, EngineTimeout, EngineUnreachable, NotSupported


def test_retries_come_after_5_10_20_40_80_seconds() -> None:
    """Each counted from the try before it; the sixth failure is the last."""
    tries, now, waits = Tries(), 1000.0, []
    while not tries.used_up:
        assert tries.due(now)
        tries = failed(tries, now, "connection refused", None, retriable=True)
        waits.append(tries.next_at - now)
        now = tries.next_at
    assert waits == [5, 10, 20, 40, 80, 0]
    assert not tries.due(now + 1e9)


@given(st.integers(0, 5), st.floats(0, 4e9))
def test_what_no_repetition_mends_is_over_at_once(failures: int, now: float) -> None:
    """However many tries are left, and with the reason kept."""
    after = failed(Tries(failures), now, "401", "1:1", retriable=False)
    assert after.used_up and not after.due(now)
    assert (after.problem, after.process) == ("401", "1:1")


@given(st.floats(0, 4e9), st.floats(0, 200))
def test_not_before_its_time(now: float, later: float) -> None:
    """Between two tries nothing is due."""
    after = failed(Tries(), now, "", None, retriable=True)
    assert after.due(now + later) is (now + later >= after.next_at)


def test_a_clock_that_was_set_back_holds_up_nothing() -> None:
    """The next try would else be years away."""
    after = failed(Tries(), 2e9, "", None, retriable=True)
    assert after.due(1e9)


def refused(status: int, text: str = "") -> EngineRefused:
    return EngineRefused("one", "POST /load", status, text)


TABLE: list[tuple[Exception, bool]] = [
    (EngineUnreachable("one", "POST", "Connection refused"), True),
    (EngineUnreachable("one", "POST", "connection reset by peer"), True),
    (EngineTimeout("one", "POST", "no answer within 120 s"), True),
    (refused(503), True),
    (refused(502), True),
    (refused(429), True),
    (refused(500, "Network is unreachable"), True),
    (refused(400, "temporary failure in name resolution"), True),
    (refused(401, "Unauthorized"), False),
    (refused(403), False),
    (refused(404, "No adapter found for <path>"), False),
    (refused(400, "The lora adapter 'x' conflicts with a served base model."), False),
    (refused(500, "LoRA rank 64 is greater than max_lora_rank 8."), False),
    (NotSupported("one", "POST", "no adapters"), False),
    (UnfitAdapter("its rank 64 is above the engine's max_lora_rank 16"), False),
    (AccessDenied("401"), False),
    (NotFound("nothing there"), False),
    (SourceUnreachable("nobody answers"), True),
    (EngineError("one", "POST", "no route to host"), True),
]


@pytest.mark.parametrize(("error", "again"), TABLE, ids=lambda value: str(value)[:60])
def test_what_may_go_by_itself(error: Exception, again: bool) -> None:
    """Connections and overload may; keys, adapters and settings stay what they are."""
    assert retriable(error) is again
