"""An adapter's requests reach an instance only while it has the adapter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from controller.fleet.adapter_route import AdapterRoute
from controller.fleet.errors import DeadlinePassed, NotLoaded
from controller.fleet.instance import Instance
from controller.fleet.state import State
from tests.controller.fleet.stage import Stage, replicas

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("tidy")]


def first(ready: Sequence[Instance]) -> Instance:
    return ready[0]


async def acquire(route: AdapterRoute, among: Sequence[Instance] | None = None, seconds: float = 5.0) -> Instance:
    among = route.instances if among is None else among
    return await route.replicas.acquire(among, first, time.monotonic() + seconds)


def waiting(route: AdapterRoute, among: Sequence[Instance] | None = None) -> asyncio.Task[Instance]:
    return asyncio.create_task(acquire(route, among))


async def test_only_members_get_requests() -> None:
    """The other replica is ready too, but has not the adapter."""
    one, two = Stage(name="one"), Stage(name="two")
    route = AdapterRoute("lora", replicas(one, two))
    route.put({two.instance: None})
    assert [await acquire(route) for _ in range(3)] == [two.instance] * 3


async def test_a_request_waits_while_nobody_has_it_yet() -> None:
    """It is served as soon as somebody joins."""
    stage = Stage()
    route = AdapterRoute("lora", replicas(stage))
    asking = waiting(route)
    await asyncio.sleep(0)
    route.put({stage.instance: None})
    assert await asking is stage.instance


async def test_a_request_that_waits_has_a_deadline() -> None:
    """Nobody ever joins."""
    route = AdapterRoute("lora", replicas(Stage()))
    with pytest.raises(DeadlinePassed):
        await acquire(route, seconds=0.01)


async def test_a_request_learns_why_nobody_has_it() -> None:
    """Those that wait, too."""
    route = AdapterRoute("lora", replicas(Stage()))
    asking = waiting(route)
    await asyncio.sleep(0)
    route.put({}, "it cannot be loaded: rank too high")
    for late in (asking, waiting(route)):
        with pytest.raises(NotLoaded, match="rank too high"):
            await late


async def test_one_that_left_while_it_woke_gets_no_request() -> None:
    """Its gate could not give it the adapter: a request that woke it goes to whoever has the adapter then."""
    one, two = Stage(name="one"), Stage(name="two")
    route = AdapterRoute("lora", replicas(one, two))
    await one.fall_asleep()
    route.put({one.instance: None})

    async def gate(instance: Instance, woken: bool) -> None:
        route.put({two.instance: None})

    one.transitions.gate = gate
    assert await waiting(route) is two.instance
    assert one.state is not State.ASLEEP


async def test_one_left_out_stays_out() -> None:
    """A request that could not reach an instance is not sent there again, but sees who joins."""
    one, two = Stage(name="one"), Stage(name="two")
    route = AdapterRoute("lora", replicas(one, two))
    route.put({one.instance: None})
    among = route.without(route.instances, one.instance)
    assert not among
    asking = waiting(route, among)
    await asyncio.sleep(0)
    route.put({one.instance: None, two.instance: None})
    assert await asking is two.instance


async def test_only_its_own_requests_are_waited_for() -> None:
    """What else runs on the instance does not hold up an unload."""
    stage = Stage()
    route = AdapterRoute("lora", replicas(stage))
    stage.instance.begin()
    await route.drained(stage.instance)
    route.began(stage.instance)
    route.began(stage.instance)
    drained = asyncio.create_task(route.drained(stage.instance))
    route.ended(stage.instance)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not drained.done()
    route.ended(stage.instance)
    await drained
