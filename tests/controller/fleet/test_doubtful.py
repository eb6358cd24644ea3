"""Engines and machines that tell little: no process to be seen, no count, another name, another time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controller.fleet import doubt
from controller.fleet.errors import Busy
from controller.fleet.state import State
from runtime.engines.base import EngineUnreachable
from tests.controller.fleet.stage import Stage, late

pytestmark = pytest.mark.anyio


async def test_an_engine_far_away_that_went_and_came_is_awake() -> None:
    """Its process cannot be seen: that nobody listened in between is what tells. It is never resumed."""
    stage = Stage(tells=False)
    stage.origin.now = None
    await stage.fall_asleep()
    stage.engine.up = False
    stage.steps.fail("busy", EngineUnreachable("one", "GET /v1/loads", "refused"))
    await stage.transitions.observe()
    assert stage.state is State.FAILED
    stage.engine.up, stage.engine.asleep = True, False
    await stage.transitions.settle()
    assert stage.instance.state is State.READY
    assert not [step for step in stage.happened if step.startswith(("wake", "died"))]


async def test_an_engine_far_away_that_is_merely_unwell_still_sleeps() -> None:
    """It answers, if badly: nobody restarted it, and its mark holds."""
    stage = Stage(tells=False)
    stage.origin.now = None
    await stage.fall_asleep()
    stage.engine.up = False
    await stage.transitions.observe()
    stage.engine.up = True
    await stage.transitions.settle()
    assert stage.state is State.ASLEEP


async def test_one_that_does_not_count_is_given_time_after_a_client_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may run on for a client that is gone: until then it counts as busy, and after that it sleeps."""
    stage = Stage(tells=False)
    monkeypatch.setattr(stage.engine, "busy", lambda: _nothing())
    stage.instance.begin()
    stage.instance.end(abandoned=True)
    with pytest.raises(Busy):
        await stage.transitions.sleep("manual", 0.05)
    assert stage.happened.count("sleep 1") == 0
    monkeypatch.setattr(doubt, "ABANDONED_SECONDS", 0.0)
    await stage.transitions.sleep("manual", 5)
    assert stage.state is State.ASLEEP


async def test_one_that_does_not_count_and_lost_no_client_sleeps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All its answers came to their end."""
    stage = Stage(tells=False)
    monkeypatch.setattr(stage.engine, "busy", lambda: _nothing())
    stage.instance.begin()
    stage.instance.end()
    await stage.transitions.sleep("manual", 0.05)
    assert stage.state is State.ASLEEP


async def test_a_mark_follows_its_process_to_another_name() -> None:
    """The instance was renamed in the YAML: the process that sleeps is the same, and only the new name has a mark."""
    stage = Stage(tells=False, name="new", state=State.UNKNOWN)
    mark = stage.mark()
    stage.marks.kept = {"old": replace(mark, instance="old")}
    await stage.transitions.settle()
    assert stage.state is State.ASLEEP
    assert list(stage.marks.kept) == ["new"]


async def test_a_mark_of_another_process_stays_with_its_name() -> None:
    """Not every mark of a stranger is ours."""
    stage = Stage(tells=False, name="new", state=State.UNKNOWN)
    stage.marks.kept = {"old": replace(stage.mark(process="7:700"), instance="old")}
    await stage.transitions.settle()
    assert stage.state is State.READY
    assert list(stage.marks.kept) == ["old"]


async def test_a_clock_that_is_set_back_prolongs_nothing() -> None:
    """The minimum sleep is measured, not read off the wall."""
    stage = Stage(min_sleep_duration=0.1)
    await stage.fall_asleep()
    wall = stage.instance.wall
    stage.instance.wall = lambda: wall() - 3600
    await asyncio.sleep(0.11)
    assert stage.instance.remaining_sleep() == 0.0


async def _nothing() -> None:
    return None


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize("what", ["wake", "sleep"])
async def test_one_that_was_started_anew_while_it_was_told_is_not_taken_for_awake(what: str) -> None:
    """In doubt it is put to sleep: the mark is of the process that sleeps, not of the one that was told."""
    stage = Stage(tells=False)
    if what == "wake":
        await stage.fall_asleep()
    held = stage.engine.hold(what)
    stage.steps.fail(what, late())
    telling = asyncio.create_task(
        stage.transitions.wake("manual") if what == "wake" else stage.transitions.sleep("manual", 5)
    )
    await held.arrives()
    stage.engine.asleep, stage.origin.now = False, "2:200"
    held.go.set()
    await asyncio.gather(telling, return_exceptions=True)
    assert (stage.state, stage.engine.asleep) == (State.ASLEEP, True)
    await stage.transitions.wake("manual")
    assert (stage.state, stage.engine.asleep) == (State.READY, False)
