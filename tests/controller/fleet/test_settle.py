"""How an instance is found again: after a restart of ours, after one of the engine, and when others move it."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from controller.fleet.state import State
from runtime.engines.base import EngineError
from state.database import StateError
from state.sleep_marks import Phase
from tests.controller.fleet.stage import Stage, late, refused, unreachable
from tests.router.gateway import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


@pytest.mark.parametrize(("phase", "process"), [(None, None), (Phase.ASLEEP, "1:100"), *product(Phase, ("9:900",))])
@pytest.mark.parametrize("asleep", [False, True])
async def test_one_that_can_be_asked_is_asked(phase: Phase | None, process: str | None, asleep: bool) -> None:
    """Its own word counts, whatever a mark says that is certain or of another process; and the mark is put right."""
    stage = Stage(state=State.UNKNOWN)
    if phase is not None:
        stage.mark(phase, process, level=2)
    stage.engine.asleep = asleep
    await stage.transitions.settle()
    assert [step for step in stage.happened if step.startswith(("sleep", "wake"))] == []
    assert stage.state is (State.ASLEEP if asleep else State.READY)
    assert [mark.phase for mark in stage.marks.kept.values()] == ([Phase.ASLEEP] if asleep else [])
    assert stage.instance.level == (0 if not asleep or phase is None else 2)


@pytest.mark.parametrize(
    ("phase", "asleep"), [(Phase.ASLEEP, True), *product((Phase.FALLING_ASLEEP, Phase.WAKING), (True, False))]
)
@pytest.mark.parametrize("process", ["1:100", None])
async def test_one_that_cannot_be_asked_sleeps_by_its_mark(phase: Phase, process: str | None, asleep: bool) -> None:
    """By a mark that is certain, or by being put to sleep once more; and the wake after that is safe."""
    stage = Stage(tells=False, state=State.UNKNOWN)
    stage.mark(phase, process)
    stage.engine.asleep = asleep
    await stage.transitions.settle()
    assert stage.state is State.ASLEEP
    assert stage.marks.kept["one"].process == "1:100"
    await stage.transitions.wake("request")
    assert not any(step.startswith("died") for step in stage.happened)


@pytest.mark.parametrize("asleep", [False, True])
@pytest.mark.parametrize(
    ("phase", "told", "state"),
    [(Phase.FALLING_ASLEEP, "sleep 2", State.ASLEEP), (Phase.WAKING, "wake 2", State.READY)],
)
async def test_what_was_under_way_is_finished(phase: Phase, told: str, state: State, asleep: bool) -> None:
    """Its own word may be from before the end of a call that still runs in there: the call is made once more."""
    stage = Stage(state=State.UNKNOWN)
    stage.mark(phase, level=2)
    stage.engine.asleep = asleep
    await stage.transitions.settle()
    assert stage.state is state
    done = phase is Phase.WAKING and not asleep
    assert [step for step in stage.happened if step.startswith(("sleep", "wake"))] == ([] if done else [told])


async def test_one_that_serves_was_never_told() -> None:
    """Whoever wrote the mark had seen to it that nothing was in flight."""
    stage = Stage(state=State.UNKNOWN)
    stage.mark(Phase.FALLING_ASLEEP)
    stage.engine.running = 1
    await stage.transitions.settle()
    assert stage.state is State.READY
    assert stage.happened == ["no mark"]


@pytest.mark.parametrize("phase", [Phase.FALLING_ASLEEP, Phase.WAKING])
@pytest.mark.parametrize("error", [refused(), late(), unreachable()])
async def test_what_cannot_be_finished_is_found_out(phase: Phase, error: EngineError) -> None:
    """By its word where it gives one; else it has failed."""
    stage = Stage(state=State.UNKNOWN)
    stage.mark(phase)
    stage.engine.asleep = phase is Phase.WAKING
    stage.steps.fail("sleep", error)
    stage.steps.fail("wake", error)
    await stage.transitions.settle()
    assert stage.state is (State.ASLEEP if phase is Phase.WAKING else State.READY)


@pytest.mark.parametrize("phase", list(Phase))
async def test_a_mark_about_another_process_is_void(phase: Phase) -> None:
    """The engine was restarted: it is awake, is told nothing, and its mark goes."""
    stage = Stage(tells=False, state=State.UNKNOWN)
    stage.mark(phase, "9:900")
    await stage.transitions.settle()
    assert stage.state is State.READY
    assert stage.happened == ["no mark"]
    assert stage.marks.kept == {}


@pytest.mark.parametrize(("launching", "state"), [(True, State.STARTING), (False, State.FAILED)])
async def test_not_there_yet_or_not_any_more(launching: bool, state: State) -> None:
    """What the launcher is just bringing up is starting; anything else that gives no answer has failed."""
    stage = Stage(state=State.UNKNOWN)
    stage.engine.up, stage.origin.launching = False, launching
    await stage.transitions.settle()
    assert stage.state is state
    stage.engine.up = True
    await stage.transitions.settle()
    assert stage.instance.state is State.READY


@pytest.mark.parametrize(("process", "state"), [("1:100", State.FAILED), ("9:900", State.STARTING)])
async def test_a_process_that_has_slept_is_not_just_starting(process: str, state: State) -> None:
    """Though this gateway has never seen it ready: it hangs. A mark of another one says nothing of it."""
    stage = Stage(state=State.UNKNOWN)
    stage.mark(Phase.ASLEEP, process)
    stage.engine.up, stage.origin.launching = False, True
    await stage.transitions.settle()
    assert stage.state is state


async def test_what_somebody_else_puts_to_sleep_is_marked_too() -> None:
    """The next gateway may find it ill, and must know what it holds."""
    stage = Stage()
    stage.engine.asleep = True
    await stage.transitions.observe()
    assert stage.state is State.ASLEEP
    assert [(mark.phase, mark.process) for mark in stage.marks.kept.values()] == [(Phase.ASLEEP, "1:100")]


async def test_what_was_found_asleep_has_started() -> None:
    stage = Stage(state=State.UNKNOWN)
    stage.mark(Phase.ASLEEP)
    stage.engine.asleep = stage.origin.launching = True
    await stage.transitions.settle()
    assert (stage.state, stage.origin.launching) == (State.ASLEEP, False)


async def test_found_out_once() -> None:
    """Whoever asks at the same time joins the one look."""
    stage = Stage(state=State.UNKNOWN)
    held = stage.engine.hold("healthy")
    looks = [asyncio.create_task(stage.transitions.settle()) for _ in range(10)]
    await held.arrives()
    second = stage.engine.hold("healthy")
    held.go.set()
    await asyncio.gather(*looks)
    assert not second.reached.is_set()


async def test_a_look_that_breaks_is_no_end() -> None:
    """When it cannot be found out, the instance has failed and waits for the next look."""
    stage = Stage(state=State.UNKNOWN)
    stage.steps.fail("is_asleep", refused(), StateError("gone"))
    await stage.transitions.settle()
    assert stage.state is State.FAILED
    with pytest.raises(StateError):
        await stage.transitions.settle()
    assert stage.state is State.FAILED
    await stage.transitions.settle()
    assert stage.instance.state is State.READY


async def test_without_marks_nobody_asks_which_process_it_is() -> None:
    """The kernel's socket tables are long where there are many engines, and would be read for each."""
    stage = Stage(state=State.UNKNOWN)
    stage.steps.fail("process", AssertionError("asked"))
    await stage.transitions.settle()
    assert stage.state is State.READY


async def test_woken_behind_our_back() -> None:
    """An engine that says it is awake serves, and its mark goes."""
    stage = Stage()
    await stage.fall_asleep()
    stage.engine.asleep = False
    await stage.transitions.observe()
    assert stage.state is State.READY
    assert stage.marks.kept == {}


async def test_put_to_sleep_behind_our_back() -> None:
    """An engine that says it sleeps is woken by the next request, which finds the level out."""
    stage = Stage()
    stage.engine.asleep = True
    await stage.transitions.observe()
    assert stage.state is State.ASLEEP
    await stage.transitions.wake("request")
    assert "wake None" in stage.happened


async def test_put_to_sleep_under_running_requests() -> None:
    """Requests that are stranded in a sleeping engine bring it back at once, even where none may wake it."""
    stage = Stage(min_sleep_duration=60, wakeup_on_request=False)
    stage.instance.begin()
    stage.engine.asleep = True
    await stage.transitions.observe()
    await until(lambda: stage.state is State.READY)
    assert stage.happened.count("wake None") == 1


async def test_a_look_never_undoes_what_happens_meanwhile() -> None:
    """An answer from before a sleep says nothing about after it."""
    stage = Stage()
    held = stage.engine.hold("is_asleep")
    looking = asyncio.create_task(stage.transitions.observe())
    await held.arrives()
    await stage.transitions.sleep("manual", 5)
    await stage.transitions.wake("manual")
    stage.engine.asleep = True  # what the old answer will say
    held.go.set()
    await looking
    assert stage.state is State.READY


async def test_a_late_answer_is_no_news() -> None:
    """An engine that is too busy to answer has not failed."""
    stage = Stage()
    stage.engine.up = None
    await stage.transitions.observe()
    assert stage.state is State.READY


async def test_gone() -> None:
    """An engine where nobody listens has failed, asleep or awake; restarted, it is ready and its mark is gone."""
    stage = Stage(tells=False)
    await stage.fall_asleep()
    stage.engine.up, stage.origin.now = False, None
    await stage.transitions.observe()
    assert stage.state is State.FAILED
    stage.engine.up, stage.origin.now, stage.engine.asleep = True, "2:200", False
    await stage.transitions.settle()
    assert stage.instance.state is State.READY
    assert stage.marks.kept == {}


async def test_restarted_between_two_looks() -> None:
    """One that cannot be asked, restarted unseen, is found awake by its process."""
    stage = Stage(tells=False)
    await stage.fall_asleep()
    await stage.transitions.observe()
    assert stage.state is State.ASLEEP
    stage.origin.now, stage.engine.asleep = "2:200", False
    await stage.transitions.observe()
    assert stage.instance.state is State.READY


@pytest.mark.parametrize("step", ["process", "put", "sleep", "wake", "clear"])
async def test_stopped_at_any_moment(step: str) -> None:
    """Wherever a gateway is stopped, the next one finds the engine, and a request can be served."""
    stage = Stage(tells=False)
    held = stage.engine.hold(step)

    async def there_and_back() -> None:
        await stage.transitions.sleep("manual", 5)
        await stage.transitions.wake("manual")

    running = asyncio.create_task(there_and_back())
    await held.arrives()
    await stage.transitions.aclose()
    await asyncio.gather(running, return_exceptions=True)
    after = Stage(tells=False, state=State.UNKNOWN)
    after.engine.asleep, after.marks.kept = stage.engine.asleep, stage.marks.kept
    await after.transitions.settle()
    await after.transitions.wake("request")
    assert after.state is State.READY
    assert not after.engine.asleep
    assert not any(step.startswith("died") for step in after.happened)
