"""Another YAML while something is under way: what was found to go wrong, each forced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller.residency.memory import GIB, total
from tests.controller.residency.house import House, launched, tenant

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
