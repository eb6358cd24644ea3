"""How long a wake is expected to take."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest

from controller.fleet.state import State
from controller.residency import tenants
from controller.residency.footprint import Footprint
from controller.residency.memory import GIB
from tests.controller.fleet.stage import Stage

THIRTY = Footprint({"gpu0": 30 * GIB}, {})


@pytest.mark.parametrize(
    ("state", "level", "known", "spent", "expected"),
    [
        (State.ASLEEP, 1, {}, 0, 4),
        (State.STARTING, 0, {}, 0, 63),
        (State.ASLEEP, 1, {1: [2, 3, 9]}, 0, 3),
        (State.WAKING, 1, {1: [2, 3, 9]}, 4, 9),
        (State.WAKING, 1, {1: [2, 3, 9]}, 20, 20),
        (State.WAKING, 1, {}, 20, 20),
        (State.ASLEEP, 2, {1: [2], 2: [40]}, 0, 40),
        (State.ASLEEP, 2, {1: [2]}, 0, 2),
        (State.READY, 0, {1: [2], 0: [90]}, 0, 2),
        (State.READY, 0, {2: [40]}, 0, 40),
        (State.STOPPED, 0, {1: [2], 0: [90]}, 0, 90),
        (State.STOPPED, 0, {1: [2]}, 0, 63),
    ],
)
def test_as_its_last_wakes_from_there_took(
    state: State, level: int, known: dict[int, list[float]], spent: float, expected: float
) -> None:
    """Of those that took longer than this one has; by its size before there was one; a start is no wake."""
    instance = Stage().instance
    instance.configure(replace(instance.config, footprint=THIRTY), instance.engine)
    instance.state, instance.level = state, level
    instance.wake_seconds |= {one: deque(seconds) for one, seconds in known.items()}
    assert tenants.wake_seconds(instance, spent) == expected
