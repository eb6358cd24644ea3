"""Time that does not count: the gateway was stopped."""

from __future__ import annotations

import pytest

from controller.supervisor.standstill import NOTICED_SECONDS, Standstill


@pytest.mark.parametrize(
    ("since", "counted"),
    [
        (0.0, 2.0),  # all of the pause was since then
        (1.0, 1.0),
        (201.0, 1.0),  # in the midst of it: an engine's answer lay there unread
        (301.0, 1.0),
        (301.5, 0.5),
        (302.0, 0.0),
    ],
)
def test_a_pause_does_not_count(since: float, counted: float) -> None:
    standstill = Standstill(0.0)
    for now in (1.0, 301.0, 302.0):
        standstill.beat(now)
    assert standstill.seconds(since, 302.0) == counted


def test_each_of_several_is_left_out_and_load_is_none() -> None:
    standstill = Standstill(0.0)
    for now in (100.0, 100.0 + NOTICED_SECONDS, 200.0):
        standstill.beat(now)
    assert standstill.seconds(0.0, 201.0) == NOTICED_SECONDS + 1.0
