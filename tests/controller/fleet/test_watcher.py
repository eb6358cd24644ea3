"""What a watcher finds out about an instance that looks healthy."""

from __future__ import annotations

import asyncio

import pytest

from controller.fleet.circuit import FAILURES, FIRST_PAUSE, Circuit
from controller.fleet.instance import Instance
from controller.fleet.silence import HUNG_SECONDS, LONGEST_SECONDS, MUTE_SECONDS
from controller.fleet.state import State
from controller.fleet.watcher import Watcher
from tests.controller.fleet.stage import Stage, late
from tests.router.gateway import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def watcher_of(stage: Stage) -> Watcher:
    return Watcher(stage.transitions, [stage.instance], set())


def circuit(stage: Stage) -> Circuit:
    return stage.instance.breaker.circuit


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stage(clock: Clock) -> Stage:
    found = Stage()
    found.instance.clock = clock
    return found


async def test_a_hung_engine_that_calls_itself_healthy_is_found_by_its_silence(stage: Stage, clock: Clock) -> None:
    watcher, instance = watcher_of(stage), stage.instance
    instance.begin()
    for _ in range(3):
        await watcher.look()
        clock.now += HUNG_SECONDS / 2
    await watcher.look()
    assert circuit(stage) is Circuit.OPEN
    assert instance.state is State.READY  # it may still answer, and serves where nobody else does


async def test_an_engine_at_work_on_a_long_prompt_is_not(stage: Stage, clock: Clock) -> None:
    watcher, instance = watcher_of(stage), stage.instance
    instance.begin()
    for _ in range(10):
        await watcher.look()
        clock.now += HUNG_SECONDS
        assert stage.engine.work is not None
        stage.engine.work += 1
    assert circuit(stage) is Circuit.CLOSED


async def test_one_that_does_not_tell_is_given_longer(stage: Stage, clock: Clock) -> None:
    watcher, instance = watcher_of(stage), stage.instance
    stage.steps.fail("pulse", *[late()] * 100)
    instance.begin()
    await watcher.look()
    await watcher.look()
    for _ in range(int(MUTE_SECONDS / LONGEST_SECONDS)):
        assert circuit(stage) is Circuit.CLOSED
        clock.now += LONGEST_SECONDS
        await watcher.look()
    assert circuit(stage) is Circuit.OPEN


async def test_the_next_process_is_not_blamed_for_the_silence_of_the_one_before(stage: Stage, clock: Clock) -> None:
    watcher, instance = watcher_of(stage), stage.instance
    instance.begin()
    for _ in range(4):
        await watcher.look()
        clock.now += LONGEST_SECONDS
    assert instance.silent_since is not None
    instance.end()
    instance.enter_stopped("hung")
    assert instance.silent_since is None
    await watcher.look()
    instance.enter_ready()
    instance.begin()
    for _ in range(2):
        await watcher.look()
        assert instance.silent_since is None
        clock.now += HUNG_SECONDS / 2


async def test_an_open_circuit_rests_until_a_look_finds_it_healthy(stage: Stage, clock: Clock) -> None:
    watcher, instance = watcher_of(stage), stage.instance
    for _ in range(FAILURES):
        instance.failed("it answered 500")
    await watcher.look()
    assert circuit(stage) is Circuit.OPEN
    clock.now += FIRST_PAUSE
    await watcher.look()
    assert circuit(stage) is Circuit.HALF_OPEN


async def test_answers_spare_a_look(stage: Stage) -> None:
    """What answered since the last look is up and awake; what has fallen silent is looked at."""
    watcher = watcher_of(stage)
    await watcher.look()
    assert stage.engine.looks == 1
    stage.instance.served += 3
    await watcher.look()
    assert stage.engine.looks == 1
    await watcher.look()
    assert stage.engine.looks == 2


async def test_answers_do_not_spare_a_look_at_one_that_sleeps(stage: Stage) -> None:
    """Whatever it answered before, it may have been woken since."""
    watcher = watcher_of(stage)
    stage.instance.served += 1
    await stage.fall_asleep()
    stage.engine.asleep = False
    await watcher.look()
    assert stage.state is State.READY


async def test_watchers_know_of_each_other_whose_instances_are_not_steady() -> None:
    """However many fail at once: each watcher counts its own in and out, and none counts them all."""
    stages = [Stage(name=f"number {number}") for number in range(3)]
    fleet, hurried = [one.instance for one in stages], set[Instance]()
    tasks = [asyncio.create_task(Watcher(one.transitions, fleet, hurried).run()) for one in stages]
    await asyncio.sleep(0)
    assert hurried == set()
    fleet[0].enter_failed("gone")
    for _ in range(FAILURES):
        fleet[1].failed("it answered 500")
    await until(lambda: hurried == {fleet[0], fleet[1]})
    fleet[0].enter_ready()
    await until(lambda: hurried == {fleet[1]})
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert hurried == set()
