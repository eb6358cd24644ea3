"""What an engine must have been given is seen to before a request can reach it."""

from __future__ import annotations

import asyncio

import pytest

from controller.fleet.instance import Instance
from controller.fleet.state import State
from state.sleep_marks import Phase
from tests.controller.fleet.stage import Stage

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


class Gate:
    """Notes who comes, in which state; can be held shut."""

    def __init__(self, stage: Stage) -> None:
        self.passed: list[tuple[State, bool]] = []
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        stage.transitions.gate = self

    async def __call__(self, instance: Instance, woken: bool) -> None:
        self.passed.append((instance.state, woken))
        self.reached.set()
        await self.open.wait()


async def test_a_woken_engine_passes_before_it_is_ready() -> None:
    """It is still waking while its gate is shut."""
    stage = Stage()
    gate = Gate(stage)
    await stage.fall_asleep()
    gate.open.clear()
    waking = asyncio.create_task(stage.transitions.wake("manual"))
    await gate.reached.wait()
    assert stage.state is State.WAKING
    gate.open.set()
    await waking
    assert (stage.state, gate.passed) == (State.READY, [(State.WAKING, True)])


async def test_one_that_comes_up_passes_before_it_is_ready() -> None:
    """It was not woken: what it has may still be there."""
    stage = Stage(state=State.UNKNOWN)
    gate = Gate(stage)
    await stage.transitions.settle()
    assert (stage.state, gate.passed) == (State.READY, [(State.UNKNOWN, False)])


async def test_one_that_was_restarted_asleep_passes_as_new() -> None:
    """Its mark is of another process."""
    stage = Stage(tells=False, state=State.UNKNOWN)
    stage.mark(Phase.ASLEEP, process="9:9")
    gate = Gate(stage)
    await stage.transitions.settle()
    assert (stage.state, gate.passed) == (State.READY, [(State.UNKNOWN, True)])


async def test_one_that_somebody_else_woke_passes_too() -> None:
    """It was found awake; until it has passed no request is let in."""
    stage = Stage()
    gate = Gate(stage)
    await stage.fall_asleep()
    stage.engine.asleep = False
    await stage.transitions.observe()
    assert (stage.state, gate.passed) == (State.READY, [(State.ASLEEP, True)])


async def test_a_gate_that_breaks_keeps_nobody_out(caplog: pytest.LogCaptureFixture) -> None:
    """The engine is ready all the same, and the log has the traceback."""
    stage = Stage()

    async def broken(instance: Instance, woken: bool) -> None:
        raise RuntimeError("a bug")

    stage.transitions.gate = broken
    await stage.fall_asleep()
    await stage.transitions.wake("manual")
    assert stage.state is State.READY
    assert "a bug" in caplog.text
