"""How one instance falls asleep: interleavings forced by holding up its engine and its marks."""

from __future__ import annotations

import asyncio

import pytest

from controller.fleet.errors import Busy, CalledOff, EngineFailed, NotPossible
from controller.fleet.state import State
from runtime.engines.base import NotSupported
from state.database import StateError
from state.sleep_marks import Phase
from tests.controller.fleet.stage import Stage, late, refused, unreachable

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


async def test_the_mark_comes_before_the_engine_is_told() -> None:
    """A mark that it falls asleep is written, then the engine is told, then the mark says that it sleeps."""
    stage = Stage()
    await stage.transitions.sleep("manual", 5, level=2)
    assert stage.happened == ["mark falling_asleep", "sleep 2", "mark asleep"]
    mark = stage.marks.kept["one"]
    assert (mark.phase, mark.level, mark.cause, mark.process) == (Phase.ASLEEP, 2, "manual", "1:100")
    assert stage.instance.sleeps == {"manual": 1}


async def test_a_request_in_flight_is_waited_for() -> None:
    """The engine is told only after the last request has ended."""
    stage = Stage()
    stage.instance.begin()
    stage.instance.begin()
    asking = asyncio.create_task(stage.transitions.sleep("manual", 5))
    for _ in range(2):
        await asyncio.sleep(0.01)
        assert (stage.state, stage.happened) == (State.DRAINING, [])
        stage.instance.end()
    await asking
    assert stage.engine.asleep


async def test_the_engines_own_count_is_waited_for() -> None:
    """Nothing in flight here is not enough: the engine is told once it says itself that it is idle."""
    stage = Stage(tells=False)
    stage.engine.running = 1
    asking = asyncio.create_task(stage.transitions.sleep("manual", 5))
    await asyncio.sleep(0.02)
    assert (stage.state, stage.happened) == (State.DRAINING, [])
    stage.engine.running = 0
    await asking
    assert stage.happened == ["mark falling_asleep", "sleep 1", "mark asleep"]


@pytest.mark.parametrize("step", ["busy", "process", "put"])
async def test_a_request_before_the_engine_is_told_calls_it_off(step: str) -> None:
    """Wherever the sleep is before the engine is told, a request takes it back, and no mark stays."""
    stage = Stage()
    held = stage.engine.hold(step)
    asking = asyncio.create_task(stage.transitions.sleep("idle", 5))
    await held.arrives()
    stage.instance.call_off()
    stage.instance.begin()
    held.go.set()
    with pytest.raises(CalledOff):
        await asking
    assert stage.state is State.READY
    assert "sleep 1" not in stage.happened
    assert stage.marks.kept == {}


async def test_a_request_that_came_and_went_calls_it_off_too() -> None:
    """A request that ended before the drain looked again still counts: somebody wants this model."""
    stage = Stage()
    held = stage.engine.hold("put")
    asking = asyncio.create_task(stage.transitions.sleep("idle", 5))
    await held.arrives()
    stage.instance.call_off()
    stage.instance.begin()
    stage.instance.end()
    held.go.set()
    with pytest.raises(CalledOff):
        await asking
    assert not stage.engine.asleep


async def test_calling_off_is_too_late_once_the_engine_is_told() -> None:
    """While the engine is being told nothing may reach it, and calling off changes nothing."""
    stage = Stage()
    held = stage.engine.hold("sleep")
    asking = asyncio.create_task(stage.transitions.sleep("manual", 5))
    await held.arrives()
    stage.instance.call_off()
    assert stage.state is State.FALLING_ASLEEP
    with pytest.raises(AssertionError):
        stage.instance.begin()
    held.go.set()
    await asking
    assert stage.instance.state is State.ASLEEP


@pytest.mark.parametrize("busy", ["here", "in the engine"])
async def test_busy_for_too_long(busy: str) -> None:
    """A drain that takes longer than its deadline is given up: it stays awake, and the engine was never told."""
    stage = Stage()
    if busy == "here":
        stage.instance.begin()
    else:
        stage.engine.running = 1
    with pytest.raises(Busy):
        await stage.transitions.sleep("manual", 0.02)
    assert (stage.state, stage.happened) == (State.READY, [])


async def test_no_time_to_drain_is_enough_for_an_idle_one() -> None:
    """With a drain deadline of 0 an idle instance sleeps, and a busy one is refused at once."""
    stage = Stage()
    await stage.transitions.sleep("manual", 0)
    assert stage.state is State.ASLEEP
    busy = Stage()
    busy.instance.begin()
    with pytest.raises(Busy):
        await busy.transitions.sleep("manual", 0)


async def test_a_slow_disk_is_no_busyness() -> None:
    """The drain deadline is about requests: finding the process and writing the mark may take longer."""
    stage = Stage()
    process, put = stage.engine.hold("process"), stage.engine.hold("put")
    asking = asyncio.create_task(stage.transitions.sleep("manual", 0.01))
    for held in (process, put):
        await held.arrives()
        await asyncio.sleep(0.02)
        held.go.set()
    await asking
    assert stage.state is State.ASLEEP


async def test_two_at_once_are_one() -> None:
    """A second sleep joins the first: one call, both are answered. A third finds it asleep."""
    stage = Stage()
    await asyncio.gather(*(stage.transitions.sleep("manual", 5) for _ in range(2)))
    await stage.transitions.sleep("manual", 5)
    assert stage.happened.count("sleep 1") == 1


async def test_whoever_asked_may_leave() -> None:
    """The sleep goes on when the one who asked for it has gone."""
    stage = Stage()
    held = stage.engine.hold("sleep")
    asking = asyncio.create_task(stage.transitions.sleep("manual", 5))
    await held.arrives()
    asking.cancel()
    held.go.set()
    await stage.transitions.sleep("manual", 5)
    assert stage.state is State.ASLEEP


async def test_a_mark_that_cannot_be_written_keeps_it_awake() -> None:
    """Without a mark no engine is told: it serves on, and who asked gets the reason."""
    stage = Stage()
    stage.marks.broken = True
    with pytest.raises(StateError):
        await stage.transitions.sleep("manual", 5)
    assert stage.state is State.READY
    assert "sleep 1" not in stage.happened
    stage.marks.broken = False
    await stage.fall_asleep()


async def test_the_database_breaks_after_the_engine_was_told() -> None:
    """An engine that has been told sleeps, whether or not that can still be written down."""
    stage = Stage()
    held = stage.engine.hold("sleep")
    asking = asyncio.create_task(stage.transitions.sleep("manual", 5))
    await held.arrives()
    stage.marks.broken = True
    held.go.set()
    await asking
    assert stage.state is State.ASLEEP
    await stage.transitions.wake("manual")
    assert stage.instance.state is State.READY


async def test_an_engine_that_cannot_be_counted_is_not_told() -> None:
    """When it does not say whether it is idle, it stays awake."""
    stage = Stage()
    stage.steps.fail("busy", unreachable())
    with pytest.raises(EngineFailed):
        await stage.transitions.sleep("manual", 5)
    assert (stage.state, stage.happened) == (State.READY, [])


async def test_refused_and_asked() -> None:
    """An engine that failed and says that it is awake serves on, without a mark."""
    stage = Stage()
    stage.steps.fail("sleep", refused())
    with pytest.raises(EngineFailed):
        await stage.transitions.sleep("manual", 5)
    assert (stage.state, stage.marks.kept) == (State.READY, {})


async def test_timed_out_and_asked() -> None:
    """A call that timed out may still be at work: the engine is asked until it sleeps."""
    stage = Stage()
    stage.steps.fail("sleep", late())
    asking = asyncio.create_task(stage.transitions.sleep("manual", 5))
    second = stage.engine.hold("is_asleep")
    await second.arrives()
    stage.engine.asleep = True
    second.go.set()
    await asking
    assert stage.state is State.ASLEEP


async def test_it_sleeps_but_cannot_be_asked_properly() -> None:
    """Told well, but a garbled answer to whether it sleeps is no word that it refused: it is asked again."""
    stage = Stage()
    stage.steps.fail("is_asleep", refused(200))
    await stage.transitions.sleep("manual", 5)
    assert (stage.state, stage.engine.asleep) == (State.ASLEEP, True)


@pytest.mark.parametrize("error", [refused(500), late()])
async def test_one_that_cannot_be_asked_is_told_again(error: Exception) -> None:
    """A second release changes nothing, and then it is certain."""
    stage = Stage(tells=False)
    stage.steps.fail("sleep", error)
    await stage.transitions.sleep("manual", 5)
    assert stage.happened == ["mark falling_asleep", "sleep 1", "sleep 1", "mark asleep"]


async def test_one_that_cannot_be_asked_but_understood() -> None:
    """A 400 says that it did nothing: it is awake, and not told again."""
    stage = Stage(tells=False)
    stage.steps.fail("sleep", refused(400))
    with pytest.raises(EngineFailed):
        await stage.transitions.sleep("manual", 5)
    assert stage.happened == ["mark falling_asleep", "sleep 1", "no mark"]
    assert stage.state is State.READY


async def test_died_while_it_was_told() -> None:
    """An engine that is gone has failed; its mark stays, for what comes back may be the same process."""
    stage = Stage()
    stage.steps.fail("sleep", unreachable())
    stage.steps.fail("is_asleep", unreachable())
    with pytest.raises(EngineFailed):
        await stage.transitions.sleep("manual", 5)
    assert stage.state is State.FAILED
    assert stage.marks.kept["one"].phase is Phase.FALLING_ASLEEP


@pytest.mark.parametrize("broken", [False, True])
async def test_no_way_to_sleep(broken: bool) -> None:
    """An engine without sleep endpoints serves on, even if the database breaks at that moment."""
    stage = Stage()
    stage.steps.fail("sleep", NotSupported("one", "POST /sleep", "no dev mode"))
    if broken:
        stage.steps.fail("clear", StateError("disk full"))
    with pytest.raises(NotPossible):
        await stage.transitions.sleep("manual", 5)
    assert stage.state is State.READY


@pytest.mark.parametrize("state", [State.UNKNOWN, State.STARTING, State.WAKING, State.FAILED])
async def test_not_from_every_state(state: State) -> None:
    """Only what is ready can be put to sleep."""
    stage = Stage()
    stage.instance._enter(state)
    with pytest.raises(NotPossible):
        await stage.transitions.sleep("manual", 5)
    assert stage.happened == []


async def test_still_wanted_at_the_moment_it_begins() -> None:
    """A sleep by idleness that is not wanted any more when its turn comes is called off before it drains."""
    stage = Stage()
    asking = asyncio.create_task(stage.transitions.sleep("idle", 5, wanted=lambda: stage.instance.in_flight == 0))
    stage.instance.begin()
    with pytest.raises(CalledOff):
        await asking
    stage.instance.end()
    assert (stage.state, stage.happened) == (State.READY, [])
