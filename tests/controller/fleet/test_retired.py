"""An instance that is out of the configuration: nothing brings it back, and it empties."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from controller.fleet.errors import NotPossible, TransitionRefused
from controller.fleet.keeper import NoKeeper
from controller.fleet.state import State
from tests.controller.fleet.stage import Stage
from tests.router.gateway import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


class Ours(NoKeeper):
    def can(self, name: str) -> bool:
        return True


class Endless(Ours):
    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def stop(self, name: str) -> None:
        self.reached.set()
        await asyncio.Event().wait()


async def empties(stage: Stage) -> None:
    """It waits for what it has, and for nothing else."""
    emptied = asyncio.create_task(stage.instance.emptied())
    await asyncio.sleep(0)
    assert not emptied.done()
    stage.instance.end()
    await asyncio.wait_for(emptied, 5)
    assert stage.state is State.FAILED


async def test_a_look_that_was_under_way_changes_nothing() -> None:
    stage = Stage()
    stage.instance.begin()
    held = stage.engine.hold("healthy")
    look = asyncio.create_task(stage.transitions.settle())
    await held.arrives()
    stage.instance.retire()
    held.go.set()
    await look
    await empties(stage)


@pytest.mark.parametrize("firm", [False, True])
async def test_a_drain_that_was_under_way_changes_nothing(firm: bool) -> None:
    stage = Stage()
    stage.instance.begin()
    drain = asyncio.create_task(stage.transitions.sleep("manual", 5, firm=firm))
    await until(lambda: stage.state is State.DRAINING)
    stage.instance.retire()
    with pytest.raises(TransitionRefused):
        await drain
    await empties(stage)


async def test_the_end_of_its_process_that_was_under_way_changes_nothing() -> None:
    stage = Stage()
    stage.transitions.keeper = Ours()
    stage.instance.begin()
    stop = asyncio.create_task(stage.transitions.stop("manual", 5))
    await until(lambda: stage.state is State.DRAINING)
    stage.instance.retire()
    await stage.transitions.aclose()
    with contextlib.suppress(TransitionRefused, asyncio.CancelledError):
        await stop
    await empties(stage)


@pytest.mark.parametrize("step", ["busy", "sleep", "is_asleep"])
async def test_who_asked_for_what_was_under_way_is_told(step: str) -> None:
    """Not broken off, as if the gateway ended."""
    stage = Stage()
    held = stage.engine.hold(step)
    asleep = asyncio.create_task(stage.transitions.sleep("manual", 5))
    await held.arrives()
    stage.instance.retire()
    await stage.transitions.aclose()
    with pytest.raises(NotPossible, match="out of service"):
        await asleep


async def test_who_asked_and_left_has_left() -> None:
    """Though at the same moment it was stopped."""
    stage = Stage()
    held = stage.engine.hold("sleep")
    asleep = asyncio.create_task(stage.transitions.sleep("manual", 5))
    await held.arrives()
    asleep.cancel()
    await stage.transitions.aclose()
    with pytest.raises(asyncio.CancelledError):
        await asleep


async def test_the_end_of_its_process_that_is_broken_off_asks_nobody() -> None:
    """An engine that does not answer keeps nobody from leaving."""
    stage = Stage()
    stage.transitions.keeper = keeper = Endless()
    stage.engine.hold("healthy")
    stop = asyncio.create_task(stage.transitions.stop("manual", 5))
    await asyncio.wait_for(keeper.reached.wait(), 5)
    await asyncio.wait_for(stage.transitions.aclose(), 5)
    with pytest.raises(NotPossible):
        await stop
