"""How one instance wakes, and what becomes of a wake that fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controller.fleet.errors import EngineFailed, NotPossible
from controller.fleet.instance import LAST_RETRY
from controller.fleet.keeper import NoKeeper
from controller.fleet.state import Hold, State
from state.sleep_marks import Phase, SleepMark
from tests.controller.fleet.stage import Stage, late, refused, unreachable
from tests.router.gateway import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]
DIED = {"died: released while busy", "died: resumed while awake"}


async def test_marked_told_and_unmarked() -> None:
    """The mark says that it wakes before it is told, and goes before a request can reach it."""
    stage = Stage()
    await stage.fall_asleep()
    held = stage.engine.hold("clear")
    waking = asyncio.create_task(stage.transitions.wake("manual"))
    await held.arrives()
    assert stage.state is State.WAKING
    held.go.set()
    await waking
    assert stage.happened == ["mark waking", "wake 1", "no mark"]
    assert stage.instance.wakes == {"ok": 1}


async def test_many_at_once_are_one() -> None:
    """However many ask, the engine is told once."""
    stage = Stage(tells=False)
    await stage.fall_asleep()
    await asyncio.gather(*(stage.transitions.wake("manual") for _ in range(20)))
    assert stage.happened.count("wake 1") == 1
    assert stage.state is State.READY


async def test_wake_while_it_falls_asleep() -> None:
    """A wake that comes while the engine is being told to sleep follows the sleep."""
    stage = Stage(tells=False)
    held = stage.engine.hold("sleep")
    sleeping = asyncio.create_task(stage.transitions.sleep("manual", 5))
    await held.arrives()
    waking = asyncio.create_task(stage.transitions.wake("manual"))
    await asyncio.sleep(0)
    held.go.set()
    await asyncio.gather(sleeping, waking)
    assert stage.state is State.READY
    assert not stage.engine.asleep and not DIED & set(stage.happened)


class OurOwn(NoKeeper):
    """Processes that end, and start, when they are told."""

    def can(self, name: str) -> bool:
        return True

    async def start(self, name: str) -> None: ...

    async def stop(self, name: str) -> None: ...


@pytest.mark.parametrize("hold", [Hold.NONE, Hold.BY_HAND])
async def test_wake_while_it_drains_to_be_stopped(hold: Hold) -> None:
    """It is stopped first. Then it is started again, unless it was stopped by hand."""
    stage = Stage()
    stage.transitions.keeper = OurOwn()
    stage.instance.begin()
    stopping = asyncio.create_task(stage.transitions.stop("manual", 5, hold))
    await until(lambda: stage.state is State.DRAINING)
    waking = asyncio.create_task(stage.transitions.wake("manual"))
    await asyncio.sleep(0)
    assert stage.state is State.DRAINING
    stage.instance.end()
    await stopping
    if hold:
        with pytest.raises(NotPossible, match="start it first"):
            await waking
    else:
        await waking
    assert stage.state is (State.STOPPED if hold else State.STARTING)


async def test_stopped_again_it_was_never_anything_else() -> None:
    """By hand, for it to stay so. The ledger counts nothing for what is stopped."""
    stage, seen = Stage(), list[State]()
    stage.transitions.keeper = OurOwn()
    await stage.transitions.stop("idle", 5)
    stage.instance.watchers.append(lambda: seen.append(stage.state))
    await stage.transitions.stop("manual", 5, Hold.BY_HAND)
    assert seen == [State.STOPPED] and stage.instance.hold is Hold.BY_HAND


async def test_wake_while_it_drains() -> None:
    """A wake takes back a sleep that only drains."""
    stage = Stage()
    stage.instance.begin()
    sleeping = asyncio.create_task(stage.transitions.sleep("manual", 5))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert stage.state is State.DRAINING
    await stage.transitions.wake("manual")
    assert stage.instance.state is State.READY
    await asyncio.gather(sleeping, return_exceptions=True)
    assert stage.happened == []


@pytest.mark.parametrize("state", [State.UNKNOWN, State.STARTING, State.FAILED])
async def test_not_from_every_state(state: State) -> None:
    """What is not there cannot be woken."""
    stage = Stage()
    stage.instance._enter(state)
    with pytest.raises(NotPossible):
        await stage.transitions.wake("manual")


async def test_failed_and_asked() -> None:
    """After a failed wake the engine is asked; it sleeps on, under its mark, and the next wake backs off."""
    stage = Stage()
    await stage.fall_asleep()
    stage.steps.fail("wake", refused())
    with pytest.raises(EngineFailed):
        await stage.transitions.wake("manual")
    assert (stage.state, stage.instance.wake_failures) == (State.ASLEEP, 1)
    assert stage.marks.kept["one"].phase is Phase.ASLEEP
    assert stage.instance.view(0.0).wake_at > 0


async def test_failed_but_awake() -> None:
    """An engine that answered with an error and says that it is awake is awake."""
    stage = Stage()
    await stage.fall_asleep()
    stage.steps.fail("wake", refused())
    stage.engine.asleep = False
    await stage.transitions.wake("manual")
    assert (stage.state, stage.marks.kept) == (State.READY, {})


async def test_timed_out_and_asked_until_it_is_awake() -> None:
    """A wake that timed out may still be at work: the engine is asked until it has come about."""
    stage = Stage()
    await stage.fall_asleep()
    stage.steps.fail("wake", late())
    asked = [stage.engine.hold("is_asleep") for _ in range(3)]
    waking = asyncio.create_task(stage.transitions.wake("manual"))
    for held in asked:
        await held.arrives()
        stage.engine.asleep = held is not asked[-1]
        held.go.set()
    await waking
    assert stage.state is State.READY
    assert stage.happened.count("wake 1") == 1


@pytest.mark.parametrize("error", [refused(), refused(400), late()])
@pytest.mark.parametrize("done", [False, True])
async def test_one_that_cannot_be_asked_is_never_resumed_twice(error: Exception, done: bool) -> None:
    """Whether or not it was done, it is put to sleep before it is told to wake again."""
    stage = Stage(tells=False)
    await stage.fall_asleep()
    stage.steps.fail("wake", error)
    stage.engine.asleep = not done
    with pytest.raises(EngineFailed):
        await stage.transitions.wake("manual")
    assert stage.state is State.ASLEEP
    await stage.transitions.wake("manual")
    assert stage.instance.state is State.READY
    assert stage.happened[:4] == ["mark waking", "wake 1", "sleep 1", "mark asleep"]
    assert not DIED & set(stage.happened)


async def test_one_that_cannot_be_asked_is_not_released_while_busy() -> None:
    """In doubt, and with something running in there, it is left alone and looked at again later."""
    stage = Stage(tells=False)
    await stage.fall_asleep()
    stage.steps.fail("wake", late())
    stage.engine.running = 1
    with pytest.raises(EngineFailed):
        await stage.transitions.wake("manual")
    assert stage.state is State.FAILED
    stage.engine.running = 0
    await stage.transitions.settle()
    assert stage.transitions.instance.state is State.ASLEEP
    await stage.transitions.wake("manual")
    assert stage.instance.state is State.READY
    assert not DIED & set(stage.happened)


async def test_gone_while_it_was_woken() -> None:
    """An engine that is gone has failed, and is not told anything more."""
    stage = Stage(tells=False)
    await stage.fall_asleep()
    stage.steps.fail("wake", unreachable())
    stage.steps.fail("busy", unreachable())
    with pytest.raises(EngineFailed):
        await stage.transitions.wake("manual")
    assert stage.state is State.FAILED
    assert stage.happened == ["mark waking", "wake 1"]


async def test_restarted_while_its_mark_says_asleep() -> None:
    """Another process than the one that was put to sleep is awake: it is not told to wake, and serves at once."""
    stage = Stage(tells=False)
    await stage.fall_asleep()
    stage.origin.now, stage.engine.asleep = "2:200", False
    await stage.transitions.wake("request")
    assert (stage.state, stage.marks.kept) == (State.READY, {})
    assert "wake 1" not in stage.happened


async def test_restarted_after_a_restart_of_ours() -> None:
    """The same for one that was found asleep by its mark."""
    stage = Stage(tells=False, state=State.UNKNOWN)
    stage.mark()
    stage.engine.asleep = True
    await stage.transitions.settle()
    assert stage.state is State.ASLEEP
    stage.origin.now, stage.engine.asleep = "2:200", False
    await stage.transitions.wake("request")
    assert stage.instance.state is State.READY
    assert not DIED & set(stage.happened)


async def test_an_unwritable_mark_does_not_keep_it_asleep() -> None:
    """A wake needs no database."""
    stage = Stage()
    await stage.fall_asleep()
    stage.marks.broken = True
    await stage.transitions.wake("manual")
    assert stage.state is State.READY


async def test_the_pause_between_wakes_doubles() -> None:
    """1, 2, 4 … times the first pause, and never more than the last; a success forgets it."""
    stage = Stage()
    stage.instance.clock = lambda: 100.0
    stage.instance.enter_asleep(stage.mark())
    pauses = []
    for _ in range(20):
        stage.instance.enter_asleep_again("no")
        pauses.append(stage.instance.view(0.0).wake_at - 100.0)
    assert [round(pause / pauses[0], 3) for pause in pauses[:4]] == [1, 2, 4, 8]
    assert pauses[-1] == LAST_RETRY
    stage.instance.enter_ready()
    assert stage.instance.view(0.0).wake_at == 0.0


async def test_the_rest_of_the_sleep() -> None:
    """It counts from the mark, also while it still falls asleep, and a wall clock set back cannot prolong it."""
    stage = Stage(min_sleep_duration=60)
    stage.instance.wall = lambda: 1000.0
    mark = stage.mark(Phase.FALLING_ASLEEP)

    def remaining(mark: SleepMark) -> float:
        stage.instance.enter_asleep(mark)
        return stage.instance.remaining_sleep()

    assert remaining(replace(mark, since=990.0)) == pytest.approx(50.0, abs=0.01)
    assert remaining(replace(mark, since=900.0)) == 0.0
    assert remaining(replace(mark, since=9000.0)) == pytest.approx(60.0, abs=0.01)
    stage.instance.enter_falling_asleep(replace(mark, since=990.0))
    assert stage.instance.remaining_sleep() == pytest.approx(50.0, abs=0.01)
    stage.instance.enter_ready()
    assert stage.instance.remaining_sleep() == 0.0
