"""How requests come by an instance of their model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from controller.fleet.circuit import FAILURES, FIRST_PAUSE
from controller.fleet.errors import CalledOff, DeadlinePassed, KeptAsleep, Unreachable, WakeFailed
from controller.fleet.instance import Instance
from controller.fleet.routes import BUSY, Replicas
from controller.fleet.state import State
from tests.controller.fleet.stage import Stage, refused, replicas, unreachable

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


def first(ready: Sequence[Instance]) -> Instance:
    return ready[0]


async def acquire(of: Replicas, seconds: float = 5.0) -> Instance:
    return await of.acquire(of.instances, first, time.monotonic() + seconds)


async def test_many_wait_for_one_wake() -> None:
    """200 requests to a sleeping model: one wake, and each is counted in."""
    stage = Stage(tells=False)
    await stage.fall_asleep()
    model = replicas(stage)
    assert await asyncio.gather(*(acquire(model) for _ in range(200))) == [stage.instance] * 200
    assert stage.happened.count("wake 1") == 1
    assert stage.instance.in_flight == 200


async def test_calls_off_a_drain() -> None:
    """A request to a draining instance is served at once, and the sleep is over."""
    stage = Stage()
    model = replicas(stage)
    held = stage.engine.hold("put")
    sleeping = asyncio.create_task(stage.transitions.sleep("manual", 5))
    await held.arrives()
    assert await acquire(model) is stage.instance
    assert stage.state is State.READY
    held.go.set()
    with pytest.raises(CalledOff):
        await sleeping


async def test_waits_while_the_engine_is_told_then_wakes_it() -> None:
    """A request that comes too late to call the sleep off wakes the engine as soon as it sleeps."""
    stage = Stage(tells=False)
    model = replicas(stage)
    held = stage.engine.hold("sleep")
    sleeping = asyncio.create_task(stage.transitions.sleep("manual", 5))
    await held.arrives()
    waiting = asyncio.create_task(acquire(model))
    await asyncio.sleep(0.01)
    assert "wake 1" not in stage.happened
    held.go.set()
    assert await waiting is stage.instance
    await sleeping
    assert [step for step in stage.happened if "mark" not in step] == ["sleep 1", "wake 1"]


async def test_the_one_awake_serves() -> None:
    """With a replica awake nobody is woken."""
    asleep, awake = Stage(name="one"), Stage(name="two")
    await asleep.fall_asleep()
    assert await acquire(replicas(asleep, awake)) is awake.instance
    assert asleep.happened == []


async def test_only_one_of_two_is_woken() -> None:
    """Requests to a model all asleep wake one replica, not all of them."""
    stages = Stage(name="one"), Stage(name="two")
    for stage in stages:
        await stage.fall_asleep()
    model = replicas(*stages)
    await asyncio.gather(*(acquire(model) for _ in range(20)))
    assert [stage.state for stage in stages].count(State.ASLEEP) == 1


async def test_the_other_one_is_woken_when_the_first_fails() -> None:
    """A wake that fails does not hold up requests that another replica can serve."""
    one, two = Stage(name="one"), Stage(name="two")
    for stage in (one, two):
        await stage.fall_asleep()
        stage.instance.asleep_since = 0.0 if stage is one else 1.0
    one.steps.fail("wake", *[refused()] * 9)
    two.steps.fail("wake", *[refused()] * 1)
    assert (await acquire(replicas(one, two))).state is State.READY


async def test_waits_for_the_rest_of_the_sleep() -> None:
    """A request that comes too early is woken when the minimum is over, not before, and without spinning."""
    stage = Stage(min_sleep_duration=0.05)
    await stage.fall_asleep()
    looks = 0
    view = stage.instance.view

    def counted(now: float) -> object:
        nonlocal looks
        looks += 1
        return view(now)

    stage.instance.view = counted  # type: ignore[method-assign, assignment]
    began = stage.instance.asleep_since
    await acquire(replicas(stage))
    assert time.time() - began >= 0.05
    assert looks < 10


async def test_retries_until_it_wakes() -> None:
    """A wake that fails twice and then succeeds answers the request."""
    stage = Stage()
    await stage.fall_asleep()
    stage.steps.fail("wake", refused(), refused())
    assert await acquire(replicas(stage)) is stage.instance
    assert stage.happened.count("wake 1") == 3


async def test_gives_up_after_some_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that never wakes fails all that wait, with the reason, long before their deadline."""
    stage = Stage()
    await stage.fall_asleep()
    stage.steps.fail("wake", *[refused()] * 9)
    tries = [stage.engine.hold("wake") for _ in range(3)]
    model = replicas(stage)
    asking = [asyncio.create_task(acquire(model, 60.0)) for _ in range(10)]
    for one in tries:
        await one.arrives()
        if one is tries[-1]:  # who waits looks before it is due again
            monkeypatch.setattr("controller.fleet.instance.FIRST_RETRY", 5.0)
        one.go.set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {WakeFailed}
    assert stage.happened.count("wake 1") == 3


async def test_kept_asleep() -> None:
    """Where requests may not wake it they are refused at once; one woken by hand serves those that wait."""
    stage = Stage(wakeup_on_request=False)
    await stage.fall_asleep()
    model = replicas(stage)
    with pytest.raises(KeptAsleep):
        await acquire(model)
    held = stage.engine.hold("wake")
    waking = asyncio.create_task(stage.transitions.wake("manual"))
    await held.arrives()
    waiting = asyncio.create_task(acquire(model))
    await asyncio.sleep(0)
    held.go.set()
    assert await waiting is stage.instance
    await waking


async def test_a_deadline_ends_the_wait_and_not_the_wake() -> None:
    """A request that waited too long is told; the wake goes on and serves the next."""
    stage = Stage()
    await stage.fall_asleep()
    model = replicas(stage)
    held = stage.engine.hold("wake")
    with pytest.raises(DeadlinePassed):
        await acquire(model, 0.02)
    held.go.set()
    assert await acquire(model) is stage.instance
    assert stage.happened.count("wake 1") == 1


async def test_leaving_ends_the_wait_and_not_the_wake() -> None:
    """Requests that leave while they wait are not counted, and the wake goes on."""
    stage = Stage()
    await stage.fall_asleep()
    held = stage.engine.hold("wake")
    waiting = asyncio.create_task(acquire(replicas(stage)))
    await held.arrives()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    held.go.set()
    await stage.transitions.wake("test")
    assert (stage.state, stage.instance.in_flight) == (State.READY, 0)


async def test_gone_while_it_was_woken() -> None:
    """All that wait for an engine that dies hear so at once."""
    stage = Stage()
    await stage.fall_asleep()
    stage.steps.fail("wake", unreachable())
    stage.steps.fail("is_asleep", unreachable())
    model = replicas(stage)
    outcomes = await asyncio.gather(*(acquire(model) for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unreachable}


async def test_a_failed_one_is_looked_at_again() -> None:
    """A request to an instance that failed a while ago finds out whether it is back."""
    stage = Stage()
    stage.instance.enter_failed("gone")
    model = replicas(stage)
    with pytest.raises(Unreachable):
        await acquire(model)
    stage.instance.looked_at -= 10
    assert await acquire(model) is stage.instance


async def test_a_look_that_finds_nothing() -> None:
    """Still gone: the request is told after that one look."""
    stage = Stage()
    stage.instance.enter_failed("gone")
    stage.instance.looked_at -= 10
    stage.engine.up = False
    with pytest.raises(Unreachable):
        await acquire(replicas(stage))


async def test_busy_replicas_wake_another() -> None:
    """Only once the one awake has much in flight is one more woken, whoever asks is served at once, and one by one."""
    awake, *sleepers = stages = [Stage(name=name) for name in ("one", "two", "three")]
    for stage in sleepers:
        await stage.fall_asleep()
    model = replicas(*stages)
    held = [stage.engine.hold("wake") for stage in sleepers]
    for _ in range(BUSY):
        assert model.try_acquire(model.instances, first) is awake.instance
        await asyncio.sleep(0)
    assert [stage.state for stage in sleepers] == [State.ASLEEP, State.ASLEEP]
    for _ in range(5):
        assert model.try_acquire(model.instances, first) is awake.instance
        await asyncio.sleep(0.001)
    assert [stage.state for stage in sleepers] == [State.WAKING, State.ASLEEP]
    for one in held:
        one.go.set()
    await sleepers[0].transitions.wake("test")


async def test_busy_replicas_wake_nobody_who_may_not_be() -> None:
    """A replica that requests may not wake, or not yet, is left asleep."""
    awake, kept, early = Stage(), Stage(name="two", wakeup_on_request=False), Stage(name="three", min_sleep_duration=60)
    for stage in (kept, early):
        await stage.fall_asleep()
    model = replicas(awake, kept, early)
    for _ in range(BUSY + 3):
        assert model.try_acquire(model.instances, first) is awake.instance
        await asyncio.sleep(0.001)
    assert (kept.state, early.state) == (State.ASLEEP, State.ASLEEP)


def opened(stage: Stage) -> Stage:
    for _ in range(FAILURES):
        stage.instance.failed("it answered 500")
    return stage


async def test_a_replica_whose_circuit_is_open_is_left_alone_as_long_as_there_is_another() -> None:
    bad, good = opened(Stage(name="bad")), Stage(name="good")
    both = replicas(bad, good)
    for _ in range(20):
        assert both.try_acquire(both.instances, first) is good.instance


async def test_the_last_replica_is_asked_even_with_an_open_circuit() -> None:
    bad, worse = opened(Stage(name="bad")), opened(Stage(name="worse"))
    both = replicas(bad, worse)
    assert both.try_acquire(both.instances, first) is bad.instance
    assert await both.acquire(both.instances, first, time.monotonic() + 1) is bad.instance


async def test_a_sleeping_replica_is_woken_when_the_circuit_of_the_one_awake_is_open() -> None:
    bad, asleep = Stage(name="bad"), Stage(name="asleep")
    await asleep.fall_asleep()
    both = replicas(opened(bad), asleep)
    woken = asleep.engine.hold("wake")
    assert both.try_acquire(both.instances, first) is bad.instance
    await woken.arrives()
    woken.go.set()


async def test_one_request_at_a_time_tries_a_circuit_that_has_rested() -> None:
    bad, good = opened(Stage(name="bad")), Stage(name="good")
    both = replicas(bad, good)
    bad.instance.clock = lambda: time.monotonic() + FIRST_PAUSE
    bad.instance.rest()
    assert both.try_acquire(both.instances, first) is bad.instance
    assert both.try_acquire(both.instances, first) is good.instance
    bad.instance.end(abandoned=True)  # its client left: nobody knows more than before
    assert both.try_acquire(both.instances, first) is bad.instance
    bad.instance.answer_began()
    assert both.try_acquire(both.instances, first) is bad.instance
