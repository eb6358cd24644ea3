"""An engine that crashes takes its memory again where that is free; nobody leaves for one that nobody asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller.fleet.journal import Happened
from controller.fleet.state import State
from controller.supervisor import policy
from tests.controller.residency.house import House, launched, tenant

ROOM_FOR_ONE = {0: 80}

Build = Callable[..., House]


@pytest.fixture
def build() -> Iterator[Build]:
    """Houses that are gone at the end, and of which nothing broke."""
    built: list[House] = []

    def one(*args: Any, **more: Any) -> House:
        built.append(House(*args, **{"residency": {"min_awake_seconds": 0, "max_wait_seconds": 2}, **more}))
        built[-1].loop.pass_time(2)  # the supervisor has seen it
        return built[-1]

    yield one
    for house in reversed(built):
        house.demolish()
        assert not house.wrong, house.wrong[0]


def pair(**of_a: Any) -> list[dict[str, Any]]:
    return [launched(0, "a", 60, **of_a), tenant("b", 60)]


def crash(house: House, name: str) -> None:
    house.engines[name].crash()
    house.loop.pass_time(0.5)


def hang(house: House, name: str) -> None:
    """It is found to, and has been for long."""
    instance = house.fleet.instances[name]
    instance.silent_since = instance.clock() - policy.SILENT_SECONDS - 1
    while instance.state is not State.STOPPED:
        house.loop.pass_time(0.1)


def happened(house: House, *which: Happened) -> list[tuple[str, Happened]]:
    return [(event.instance, event.what) for event in house.told if event.what in which]


@pytest.mark.parametrize("falls", [crash, hang])
def test_where_its_room_is_free_it_is_back_at_once(build: Build, falls: Callable[[House, str], None]) -> None:
    house = build(pair(), ROOM_FOR_ONE, asleep=["b"])
    falls(house, "a")
    house.loop.pass_time(5)
    house.check()
    assert house.awake == {"a"}


@pytest.mark.parametrize("falls", [crash, hang])
@pytest.mark.parametrize("groups", [{}, {"either": {"members": ["a", "b"], "exclusive": True}}], ids=["size", "group"])
def test_nobody_leaves_for_one_that_nobody_asks_for(
    build: Build, falls: Callable[[House, str], None], groups: dict[str, Any]
) -> None:
    """It rests, which can be seen, and so it does when the gateway is started anew; its next request starts it."""
    house = build(pair(), {0: 200} if groups else ROOM_FOR_ONE, asleep=["b"], groups=groups)
    falls(house, "a")
    serving = house.ask("b", lasts=0.1)
    house.loop.pass_time(20)
    house.check()
    assert (serving.outcome, house.awake, house.state("a")) == ("served", {"b"}, State.STOPPED)
    why = "it crashed, and others would have to leave for it"
    assert house.fleet.instances["a"].problem == f"no process of it runs ({why})"
    assert (house.told[-1].what, house.told[-1].instance, house.told[-1].cause) == (Happened.STOPPED, "a", why)
    assert happened(house, Happened.EVICTED, Happened.STARTED) == []
    assert "a" not in house.yard.launched  # what was left of it is ended
    house.close()
    house.open()
    house.loop.pass_time(20)
    assert (house.awake, house.state("a")) == ({"b"}, State.STOPPED)
    asking = house.ask("a", lasts=0.1)
    house.loop.pass_time(5)
    house.check()
    assert (asking.outcome, house.awake) == ("served", {"a"})


def test_others_leave_for_one_that_is_waited_for(build: Build) -> None:
    house = build(pair(), ROOM_FOR_ONE, asleep=["b"])
    crash(house, "a")
    serving = house.ask("b", lasts=0.1)
    house.loop.pass_time(0.3)
    asking = house.ask("a", lasts=0.1)
    house.loop.pass_time(5)
    house.check()
    assert (serving.outcome, asking.outcome, house.awake) == ("served", "served", {"a"})
    assert happened(house, Happened.EVICTED) == [("b", Happened.EVICTED)]


def test_one_that_is_waited_for_in_vain_rests_when_nobody_waits_any_more(build: Build) -> None:
    house = build(pair(), ROOM_FOR_ONE, asleep=["b"], residency={"min_awake_seconds": 0, "max_wait_seconds": 60})
    crash(house, "a")
    busy = house.ask("b")
    house.loop.pass_time(0.3)
    asking = house.ask("a", seconds=8, lasts=0.1)
    house.loop.pass_time(5)
    assert (busy.phase, asking.phase) == ("in flight", "waiting")
    assert happened(house, Happened.STOPPED) == []
    house.loop.pass_time(10)
    busy.finish()
    house.loop.pass_time(10)
    house.check()
    assert (asking.outcome, busy.outcome, house.awake) == ("DeadlinePassed", "served", {"b"})
    assert happened(house, Happened.STOPPED, Happened.EVICTED) == [("a", Happened.STOPPED)]


@pytest.mark.parametrize(
    ("of_a", "sections"),
    [({}, {"models": {"a": {"pinned": True}}}), ({"sleep_manager": {"wakeup_on_request": False}}, {})],
    ids=["pinned", "not woken by requests"],
)
def test_one_that_is_to_be_there_unasked_has_room_made(
    build: Build, of_a: dict[str, Any], sections: dict[str, Any]
) -> None:
    house = build(pair(**of_a), ROOM_FOR_ONE, asleep=["b"], **sections)
    crash(house, "a")
    serving = house.ask("b", lasts=0.1)
    house.loop.pass_time(20)
    house.check()
    assert (serving.outcome, house.awake) == ("served", {"a"})


def test_who_waits_for_room_elsewhere_is_not_in_its_way(build: Build) -> None:
    """And takes no part of what those need who wait."""
    patient = {"min_awake_seconds": 0, "max_wait_seconds": 60}
    house = build(
        [tenant("hot", 60), tenant("cold", 60), launched(0, "a", 60, gpus=[1])],
        {0: 80, 1: 80},
        asleep=["cold"],
        residency=patient,
    )
    busy = house.ask("hot")
    waiting = house.ask("cold", lasts=0.1)
    house.loop.pass_time(1)
    crash(house, "a")
    house.loop.pass_time(5)
    house.check()
    assert (busy.phase, waiting.phase) == ("in flight", "waiting")
    assert house.awake == {"hot", "a"}


def test_it_takes_no_part_of_what_is_kept_for_who_waits(build: Build) -> None:
    """There would be room for it beside the one that serves, and not beside the one that waits, too."""
    patient = {"min_awake_seconds": 0, "max_wait_seconds": 60}
    house = build(
        [tenant("hot", 40), tenant("cold", 60), launched(0, "a", 20)], ROOM_FOR_ONE, asleep=["cold"], residency=patient
    )
    busy = house.ask("hot")
    waiting = house.ask("cold", lasts=0.1)
    house.loop.pass_time(1)
    crash(house, "a")
    house.loop.pass_time(5)
    house.check()
    assert (busy.phase, waiting.phase, house.state("a")) == ("in flight", "waiting", State.STOPPED)
    busy.finish()
    house.loop.pass_time(5)
    assert (waiting.outcome, house.awake) == ("served", {"cold"})


def test_of_all_that_crash_at_once_those_come_back_that_fit(build: Build) -> None:
    house = build([launched(number, name, 30) for number, name in enumerate("abc")], ROOM_FOR_ONE, asleep=["c"])
    house.engines["c"].is_woken()
    for name in "abc":
        house.engines[name].crash()
    house.loop.pass_time(60)
    house.check()
    assert len(house.awake) == 2
    assert happened(house, Happened.EVICTED) == []


def test_without_figures_it_is_back_at_once(build: Build) -> None:
    """Whoever else is there."""
    house = build([launched(0, "a", 60), tenant("b", 60)], {}, asleep=["b"])
    crash(house, "a")
    serving = house.ask("b", lasts=0.1)
    house.loop.pass_time(5)
    house.check()
    assert (serving.outcome, house.awake) == ("served", {"a", "b"})


@pytest.mark.parametrize("looked", [True, False])
def test_one_that_dies_asleep_is_wanted_by_nobody(build: Build, looked: bool) -> None:
    """``looked``: the supervisor has seen that it slept."""
    house = build(pair(), ROOM_FOR_ONE, asleep=["b"])
    house.put_to_sleep("a")
    house.settle()
    if looked:
        house.loop.pass_time(1.5)
    assert house.state("a") is State.ASLEEP
    house.engines["a"].crash()
    house.loop.create_task(house.fleet.transitions["a"].observe_now())
    house.settle()
    assert house.state("a") is State.FAILED
    house.loop.pass_time(30)
    rests(house, "a")


def test_one_that_dies_as_it_falls_asleep_is_wanted_by_nobody(build: Build) -> None:
    house = build(pair(), ROOM_FOR_ONE, asleep=["b"])
    held = house.engines["a"].hold("sleep")
    house.put_to_sleep("a")
    house.settle()
    assert (held.reached.is_set(), house.state("a")) == (True, State.FALLING_ASLEEP)
    crash(house, "a")
    held.go.set()
    house.loop.pass_time(30)
    rests(house, "a")


def test_one_that_dies_asleep_while_no_gateway_is_there_is_wanted_by_nobody(build: Build) -> None:
    house = build(pair(), ROOM_FOR_ONE, asleep=["a", "b"])
    house.close()
    crash(house, "a")
    house.open()
    house.loop.pass_time(30)
    rests(house, "a")


def test_one_that_has_woken_and_dies_is_back_at_once(build: Build) -> None:
    """Also if nobody has looked since it slept."""
    house = build(pair(), ROOM_FOR_ONE, asleep=["a", "b"])
    house.wake("a")
    house.settle()
    assert house.state("a") is State.READY
    crash(house, "a")
    house.loop.pass_time(5)
    house.check()
    assert house.awake == {"a"}


def rests(house: House, name: str) -> None:
    """Until it is asked for; what it has left behind is ended."""
    house.check()
    assert happened(house, Happened.STARTED) == []
    assert house.fleet.instances[name].problem == "no process of it runs (it died asleep)"
    assert name not in house.yard.launched
    asking = house.ask(name, lasts=0.1)
    house.loop.pass_time(5)
    house.check()
    assert asking.outcome == "served"
