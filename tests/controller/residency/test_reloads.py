"""Another YAML while something is under way: what was found to go wrong, each forced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller.fleet.errors import FleetError
from controller.fleet.journal import Happened
from controller.fleet.state import State
from controller.residency.memory import GIB, total
from runtime.engines.base import NotSupported
from state.desired_states import Wanted
from tests.controller.residency.house import House, launched, tenant
from tests.controller.residency.tenant_engine import NextGateway

ROOM_FOR_ONE = {0: 80}

Build = Callable[..., House]


@pytest.fixture
def build() -> Iterator[Build]:
    """Houses that are gone at the end, and of which nothing broke."""
    built: list[House] = []

    def one(*args: Any, **more: Any) -> House:
        built.append(House(*args, **{"residency": {"min_awake_seconds": 0, "max_wait_seconds": 2}, **more}))
        return built[-1]

    yield one
    for house in reversed(built):
        house.demolish()
        assert not house.wrong, house.wrong[0]


@pytest.fixture
def house(build: Build) -> House:
    """``a`` is awake, ``b`` is not, and there is room for one."""
    return build([tenant("a", 60), tenant("b", 60)], ROOM_FOR_ONE, asleep=["b"])


def test_another_level_while_somebody_leaves_at_the_one_before(house: House) -> None:
    """It sleeps at that, and who waits gets its place."""
    held = house.engines["a"].hold("sleep")
    waiting = house.ask("b", lasts=0.1)
    house.settle()
    assert held.reached.is_set()
    house.tenants["a"]["sleep_manager"] = {"level": 2}
    house.apply()
    house.loop.pass_time(1)
    held.go.set()
    house.loop.pass_time(5)
    house.check()
    assert (waiting.outcome, house.fleet.instances["a"].level) == ("served", 1)


# -- what is gone, and was asked before --------------------------------------------------------------------------


def taken(house: House) -> float:
    """GiB of the GPU, by all engines there are."""
    return total(engine.memory for engine in house.engines.values())["gpu0"] / GIB


def take_out(house: House, *names: str) -> dict[str, Any]:
    entries = {name: house.tenants.pop(name) for name in names}
    house.apply()
    return entries


@pytest.mark.parametrize("stopped", [False, True])
def test_who_waits_for_a_model_that_goes_gets_no_more_memory_than_there_is(build: Build, stopped: bool) -> None:
    """It was accepted: it is served, in its turn, and no new request comes to it."""
    house = build([tenant("a", 60), launched(1, "b", 60)], ROOM_FOR_ONE, asleep=["b"])
    if stopped:
        house.by_hand.append(house.loop.create_task(house.fleet.transitions["b"].stop("idle", 0)))
        house.loop.pass_time(1)
    serving = house.ask("a")
    waiting = house.ask("b", lasts=1.0)
    house.settle()
    take_out(house, "b")
    house.loop.pass_time(1)
    assert "b" not in house.fleet.routes
    serving.finish()
    for _ in range(50):
        house.loop.pass_time(0.1)
        house.check()
        assert taken(house) < 80
    assert (serving.outcome, waiting.outcome) == ("served", "served")
    assert set(house.fleet.instances) == {"a"} == {one.name for one in house.live.pools}


def test_a_model_that_returns_before_it_has_finished_was_never_away(house: House) -> None:
    """Its engine has one record, which knows what is in flight there."""
    serving, instance = house.ask("a"), house.fleet.instances["a"]
    house.settle()
    entries = take_out(house, "a")
    house.loop.pass_time(1)
    house.tenants.update(entries)
    house.apply()
    house.loop.pass_time(1)
    assert house.fleet.instances["a"] is instance and instance.in_flight == 1
    serving.finish()
    house.loop.pass_time(1)
    assert (house.ask("a", lasts=0.1).phase, serving.outcome) == ("new", "served")
    house.loop.pass_time(1)
    assert house.clients[-1].outcome == "served"


def test_one_that_is_gone_is_put_to_sleep_no_more(house: House) -> None:
    """That is asked once more when its turn has come, though its model may have left meanwhile."""
    instance = house.fleet.instances["a"]
    take_out(house, "a")
    house.loop.pass_time(1)
    assert not house.live.sleep.is_candidate(instance)


def test_an_engine_that_could_not_sleep_makes_place_for_one_that_can(build: Build) -> None:
    """What was found out about the one is not said of the other."""
    idly = {"auto_sleep_enabled": True, "idle_threshold_seconds": 2, "check_interval_seconds": 1}
    house = build([launched(1, "a", 10)], ROOM_FOR_ONE, sleep_manager=idly)
    engine = house.engines["a"]
    engine.steps.fail("sleep", NotSupported("a", "POST /sleep", "it was started without sleep mode"))
    house.loop.pass_time(5)
    assert house.state("a") is State.READY
    house.tenants["a"]["engine_args"] = ["--enable-sleep-mode", "--seed", "1"]
    house.roll_out()
    house.loop.pass_time(20)
    assert house.state("a") is State.ASLEEP


def test_one_that_is_being_stopped_goes(build: Build) -> None:
    """Who asked for that is told, whatever comes of it."""
    house = build([tenant("a", 10), launched(1, "b", 10)], ROOM_FOR_ONE)
    house.engines["b"].lasts["stop"] = 3.0
    asked, stopping = house.ask("b"), house.stop("b")
    house.settle()
    take_out(house, "b")
    house.loop.pass_time(1)
    asked.finish()
    house.loop.pass_time(30)
    house.check()
    assert asked.outcome == "served" and stopping.done() and not stopping.cancelled()


def test_a_replica_that_goes_holds_its_memory_as_long_as_it_answers(build: Build) -> None:
    """Who wants it waits until then. When the replica comes back, it is not counted twice."""
    twins = [tenant(f"twin{place}", 60, model="twin", gpus=[place]) for place in (0, 1)]
    house = build([*twins, tenant("b", 60)], {0: 80, 1: 80}, asleep=["b"])
    serving = [house.ask("twin"), house.ask("twin")]
    house.settle()
    entries = take_out(house, "twin0")
    waiting = house.ask("b", lasts=0.1)
    house.loop.pass_time(10)
    assert waiting.phase == "waiting" and house.arbiter.waiting[0].why == "everybody who could leave is busy"
    house.tenants.update(entries)
    house.apply()
    house.loop.pass_time(1)
    assert house.over() == {}
    for client in serving:
        client.finish()
    house.loop.pass_time(5)
    house.check()
    assert waiting.outcome == "served"


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("do", [House.stop, House.start, House.wake])
def test_what_is_asked_of_one_that_goes_is_refused(build: Build, do: Callable[..., Any], turns: int) -> None:
    """At whatever moment it goes: nothing breaks, and nothing is done to whoever has its name next."""
    house = build([tenant("a", 10), launched(1, "b", 10)], ROOM_FOR_ONE, asleep=["b"])
    if do is House.start:
        house.stop("b")
        house.loop.pass_time(5)
    house.tenants.pop("b")
    house.apply()
    house.loop.turn(turns)
    asked = do(house, "b") if "b" in house.fleet.instances else None
    house.loop.pass_time(90)
    house.check()
    if asked is not None and (failure := asked.exception()) is not None:
        assert isinstance(failure, FleetError), failure


def test_who_waits_for_an_engine_that_is_made_anew_is_served_by_that(build: Build) -> None:
    """It waited in the line for the one before, and goes on waiting for the one that has its name now."""
    house = build([tenant("a", 60), launched(1, "b", 60)], ROOM_FOR_ONE, asleep=["b"])
    busy = house.ask("a")
    waiting = house.ask("b", seconds=300, lasts=0.1)
    house.settle()
    assert house.arbiter.waiting
    house.tenants["b"]["engine_args"] = ["--enable-sleep-mode", "--seed", "1"]
    house.tenants["b"]["sleep_manager"] = {"drain_timeout_seconds": 1}
    made = house.roll_out()
    house.loop.pass_time(10)
    assert made.done() and waiting.phase == "waiting"
    busy.finish()
    house.loop.pass_time(10)
    house.check()
    assert waiting.outcome == "served"


@pytest.mark.parametrize("turns", range(8))
def test_one_that_goes_as_it_is_seen_that_it_has_crashed(build: Build, turns: int) -> None:
    """Who looks after all of them looks on."""
    house = build([launched(0, "a", 10), launched(1, "b", 10), launched(2, "c", 10)], ROOM_FOR_ONE)
    for name in "abc":
        house.engines[name].crash()
    house.loop.pass_time(0.9)
    house.tenants.pop("b")
    house.apply()
    house.loop.turn(turns)
    look = house.loop.create_task(house.live.supervisor.look())
    house.loop.pass_time(30)
    look.result()
    house.check()
    assert house.awake == {"a", "c"}


@pytest.mark.parametrize("pinned", [False, True])
def test_one_that_is_started_aside_takes_no_more_than_there_is(build: Build, pinned: bool) -> None:
    """``launch.py --restart`` asks for room first, like all others. Without any its next request is to start it."""
    house = build([launched(0, "a", 60), launched(1, "b", 60)], ROOM_FOR_ONE, models={"a": {"pinned": pinned}})
    house.by_hand.append(house.loop.create_task(house.fleet.transitions["b"].stop("idle", 0)))
    house.loop.pass_time(1)
    house.engines["a"].lasts["sleep"] = 3.0
    house.start_aside("b")
    for _ in range(80):
        house.loop.pass_time(0.5)
        assert taken(house) <= 80
        house.check()
    assert house.awake == ({"a"} if pinned else {"b"})
    assert house.state("b") is (State.STOPPED if pinned else State.READY)


@pytest.mark.parametrize("turns", range(8))
def test_a_gateway_that_is_taken_over_from_meanwhile_changes_nothing(build: Build, turns: int) -> None:
    """At whatever moment: it has put the next gateway in the place of its engines, and that stays."""
    house = build([launched(0, "a", 60)], ROOM_FOR_ONE)
    elder, asking = house.live, house.ask("a")
    house.settle()
    house.sections["residency"] = {"min_awake_seconds": 1}
    house.apply()
    house.loop.turn(turns)
    house.succeed()
    house.loop.pass_time(0.5)
    assert [type(one.engine) for one in elder.fleet.instances.values()] == [NextGateway]
    asking.finish()
    house.loop.pass_time(5)
    house.check()
    assert asking.outcome == "served"


@pytest.mark.parametrize("slept", [False, True])
@pytest.mark.parametrize("how", ["reload", "restart", "take over"])
def test_one_that_is_gone_holds_its_memory_as_long_as_its_process_runs(build: Build, slept: bool, how: str) -> None:
    """That a reload by itself does not end, nor a gateway that never had it. Who wants its memory waits until somebody
    has ended it.
    """
    house = build([tenant("a", 60), launched(1, "b", 60)], {0: 100}, asleep=["a", "b"][: 1 + slept])
    entries = {"b": house.tenants.pop("b")}
    house.write()
    if how == "reload":
        house.apply()
    elif how == "restart":
        house.close()
        house.open()
    else:
        house.succeed()
    house.loop.pass_time(5)
    assert house.arbiter.books().held["b"]["gpu0"] == (1 if slept else 60) * GIB
    waiting = house.ask("a", lasts=0.1)
    house.loop.pass_time(10)
    house.check()
    assert taken(house) <= 100 and waiting.outcome == ("served" if slept else "")
    house.tenants.update(entries)
    house.apply()
    house.loop.pass_time(5)
    assert set(house.arbiter.books().held) == {"a", "b"}
    take_out(house, "b")
    house.by_hand.append(house.loop.create_task(house.yard.stop("b")))
    house.loop.pass_time(5)
    house.check()
    assert waiting.outcome == "served"
    assert set(house.arbiter.books().held) == {"a"}


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_one_that_is_gone_and_does_not_run_holds_nothing(build: Build, end: str) -> None:
    """Nobody leaves for it."""
    house = build([tenant("a", 60), launched(1, "b", 60)], ROOM_FOR_ONE, asleep=["a"])
    if end == "stop":
        house.stop("b")
    else:
        house.engines["b"].crash()
    house.loop.pass_time(0.5)
    assert house.ask("a", lasts=0.1).phase == "new"
    house.loop.pass_time(0.5)
    take_out(house, "b")
    house.loop.pass_time(5)
    house.check()
    assert house.awake == {"a"} and set(house.arbiter.books().held) == {"a"}
    assert not [event for event in house.told if event.what is Happened.EVICTED]


@pytest.mark.parametrize("turns", range(0, 40, 3))
def test_who_is_stopped_by_hand_as_it_is_started_anew_stays_stopped(build: Build, turns: int) -> None:
    """Or the stop is refused, and it runs: at whatever moment, what is wanted is what is."""
    house = build([launched(0, "a", 60), launched(1, "b", 10)], ROOM_FOR_ONE)
    house.tenants["a"]["engine_args"] = ["--enable-sleep-mode", "--seed", "1"]
    made = house.roll_out()
    house.loop.turn(turns)
    stopped = house.stop("a")
    house.loop.pass_time(90)
    house.check()
    assert made.done() and stopped.done()
    wanted = house.yard.wishes.kept["a"].wanted
    assert wanted is (Wanted.STOPPED if stopped.exception() is None else Wanted.RUNNING)
    assert house.engines["a"].runs is (wanted is Wanted.RUNNING)


def test_who_waits_for_a_replica_that_is_made_anew_is_not_held_up_by_what_it_waited_for_before(build: Build) -> None:
    """Of which only one is left that no request wakes."""
    first = tenant("first", 60, model="twin", sleep_manager={"wakeup_on_request": False})
    second = tenant("second", 60, model="twin")
    house = build([tenant("a", 60), first, second], ROOM_FOR_ONE, asleep=["first", "second"])
    busy, waiting = house.ask("a"), house.ask("twin", lasts=0.1)
    house.settle()
    for step in (house.reload.drain("second", 5.0), house.reload.admit("second")):
        house.by_hand.append(house.loop.create_task(step))
        house.loop.pass_time(0.5)
    assert waiting.phase == "waiting"
    busy.finish()
    house.loop.pass_time(5)
    house.check()
    assert waiting.outcome == "served"
