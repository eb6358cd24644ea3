"""What one instance holds, by its state: never less than it takes."""

from __future__ import annotations

import pytest

from controller.fleet.state import State
from controller.residency.books import Books, held
from controller.residency.footprint import Footprint

AWAKE, LIGHT, DEEP = {"gpu0": 30}, {"gpu0": 1, "host": 30}, {"gpu0": 1}
FOOTPRINT = Footprint(AWAKE, {1: LIGHT, 2: DEEP})
BOTH = {"gpu0": 30, "host": 30}


@pytest.mark.parametrize(
    ("state", "level", "maybe_asleep", "granted", "expected"),
    [
        (State.READY, 1, False, False, AWAKE),
        (State.DRAINING, 1, False, False, BOTH),
        (State.DRAINING, 0, False, False, AWAKE),
        (State.FALLING_ASLEEP, 1, True, False, BOTH),
        (State.FALLING_ASLEEP, 0, False, False, AWAKE),  # its process is being ended
        (State.ASLEEP, 1, True, False, LIGHT),
        (State.ASLEEP, 2, True, False, DEEP),
        (State.ASLEEP, 0, True, False, LIGHT),
        (State.ASLEEP, 1, True, True, BOTH),
        (State.WAKING, 1, True, True, BOTH),
        (State.WAKING, 1, True, False, BOTH),
        (State.WAKING, 2, True, True, AWAKE),
        (State.STOPPED, 0, False, False, {}),
        (State.STOPPED, 0, False, True, AWAKE),
        (State.STARTING, 1, False, True, AWAKE),
        (State.UNKNOWN, 0, True, False, BOTH),
        (State.UNKNOWN, 1, True, False, BOTH),
        (State.UNKNOWN, 2, True, False, AWAKE),
        (State.FAILED, 1, False, False, AWAKE),
        (State.FAILED, 1, True, False, BOTH),
    ],
)
def test_what_is_held(state: State, level: int, maybe_asleep: bool, granted: bool, expected: dict[str, int]) -> None:
    """Weights that come back from the host are there until they have arrived."""
    assert held(FOOTPRINT, state, level, maybe_asleep=maybe_asleep, granted=granted) == expected


def test_one_that_is_gone_holds_nothing() -> None:
    assert held(FOOTPRINT, State.FAILED, 1, maybe_asleep=True, gone=True) == {}


def test_sums() -> None:
    books = Books.of({"gpu0": 80, "host": 20}, {"a": BOTH, "b": LIGHT})
    assert books.used == {"gpu0": 31, "host": 60}
    assert books.free == {"gpu0": 49, "host": -40}
