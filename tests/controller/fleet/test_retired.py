"""An instance that is out of the configuration: nothing brings it back, and it empties."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from controller.fleet.errors import TransitionRefused
from controller.fleet.keeper import NoKeeper
from controller.fleet.state import State
from tests.controller.fleet.stage import Stage
from tests.router.gateway import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


class Ours(NoKeeper):
    def can(self, name: str) -> bool:
        return True


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
