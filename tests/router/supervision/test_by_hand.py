"""What is stopped by hand stays stopped; what only rests is started by its first request."""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from unittest import mock

import pytest

from controller.fleet.errors import NotPossible
from controller.fleet.state import Hold, State
from controller.launch import launcher
from controller.launch.exclusion import AtWork, alone, turn
from controller.launch.sessions import close_session
from tests.controller.launch.conftest import Workplace
from tests.router.gateway import code_of, text_of, until
from tests.router.proxy.scripted import raw
from tests.router.supervision.conftest import kept, runs, sim, unit_of

pytestmark = pytest.mark.anyio

QUICK = {"min_sleep_duration": 0, "wake_timeout_seconds": 10}


async def test_stopped_over_the_api_it_stays_so_across_a_restart_of_the_gateway(workplace: Workplace) -> None:
    """Requests are told how to start it, a wake is refused, a start is a start."""
    workplace.write(sim("a"), sim("b"), sleep_manager=QUICK)
    async with kept(workplace) as fleet:
        pid = fleet.pid("a")
        done = await fleet.act("stop", "a")
        assert (done.status_code, done.json()["instances"]) == (200, {"a": "stopped"})
        assert not runs(pid)
        assert code_of(await fleet.gateway.complete("a")) == (503, "model_stopped")
        assert text_of(await fleet.gateway.complete("b"))
    async with kept(workplace, up=False) as fleet:
        refused = await fleet.gateway.complete("a")
        assert code_of(refused) == (503, "model_stopped")
        assert "the API" in refused.text and "/action/start/a" in refused.text
        status = (await fleet.gateway.client.get("/model/sleep/status")).json()["models"]["a"]
        assert status["outlook"] == {
            "cause": "no process of it runs (stopped by the API)",
            "position": None,
            "expected_seconds": None,
        }
        assert code_of(await fleet.act("wakeup", "a")) == (409, "not_possible")
        started = await fleet.act("start", "a")
        assert started.status_code == 200, started.text
        assert text_of(await fleet.gateway.complete("a"))
        assert (await fleet.act("start", "a")).status_code == 200  # it runs already


async def test_a_stop_drains_and_is_refused_while_it_is_busy(workplace: Workplace) -> None:
    """What does not end in time goes on, and so does the engine; and it is not held for stopped afterwards."""
    workplace.write(sim("a"), sleep_manager={**QUICK, "drain_timeout_seconds": 0.2})
    async with kept(workplace) as fleet:
        url = fleet.gateway.instance("a").config.spec.base_url
        silent = {"silent_after_tokens": {"tokens": 2, "times": 1}}
        assert (await fleet.gateway.client.post(f"{url}/sim/faults", json=silent)).status_code == 200
        async with raw(fleet.gateway) as stream:
            await stream.post("/v1/completions", {"model": "a", "prompt": "x", "stream": True})
            await stream.head()
            assert code_of(await fleet.act("stop", "a")) == (409, "still_busy")
            assert text_of(await fleet.gateway.complete("a"))
            assert fleet.gateway.instance("a").in_flight == 1
        fleet.kill("a")
        await until(lambda: "crashed" in fleet.events("a"))
        await fleet.is_("a", State.READY)


async def test_the_launchers_stop_is_obeyed_and_its_restart_too(workplace: Workplace) -> None:
    """Beside a gateway that runs: what it stops is not started, what it starts is served."""
    workplace.write(sim("a"), sleep_manager=QUICK)
    async with kept(workplace) as fleet:
        await until(lambda: fleet.gateway.instance("a").attended)
        text_of(await fleet.gateway.complete("a"))
        assert await fleet.launch("stop", "a") == 0
        assert code_of(await fleet.gateway.complete("a")) == (503, "model_stopped")
        await until(lambda: fleet.gateway.instance("a").hold is Hold.BY_HAND)
        refused = await fleet.gateway.complete("a")
        assert code_of(refused) == (503, "model_stopped")
        assert "launch.py --stop" in refused.text
        assert await fleet.launch("restart", "a") == 0
        await fleet.is_("a", State.READY)
        assert text_of(await fleet.gateway.complete("a"))


async def test_what_starts_stopped_is_started_by_its_first_request(workplace: Workplace) -> None:
    """The launcher leaves it out; by name it starts it."""
    workplace.write(sim("a"), sim("b", start="stopped"), sleep_manager=QUICK)
    async with kept(workplace) as fleet:
        assert "b" not in workplace.panes()
        assert "its first request starts it" in workplace.output
        assert await fleet.launch("status") == 0
        assert fleet.gateway.state("b") is State.STOPPED
        answers = await asyncio.gather(*(fleet.gateway.complete("b") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {200}
        assert fleet.events("b").count("started") == 1


async def test_what_was_stopped_for_being_idle_is_started_by_a_request(workplace: Workplace) -> None:
    """After a restart of the gateway, too."""
    workplace.write(sim("a"), sleep_manager=QUICK)
    async with kept(workplace) as fleet:
        await fleet.gateway.fleet.transitions["a"].stop("idle", 5)
        assert "a" not in workplace.panes()
    async with kept(workplace, up=False) as fleet:
        assert fleet.gateway.state("a") is State.STOPPED
        assert text_of(await fleet.gateway.complete("a"))


async def test_what_is_being_stopped_as_the_next_gateway_takes_over_has_not_crashed(workplace: Workplace) -> None:
    """The next one is not held up by that, starts nothing beside it, and finds it stopped."""
    workplace.write(sim("a"), sleep_manager=QUICK)
    begun, go = threading.Event(), threading.Event()

    def slowly(*of: Any) -> list[int]:
        begun.set()
        assert go.wait(30)
        return close_session(*of)

    async with kept(workplace) as fleet:
        with mock.patch.object(launcher, "close_session", slowly):
            stopping = asyncio.create_task(fleet.gateway.fleet.transitions["a"].stop("idle", 5))
            await asyncio.to_thread(begun.wait)
            await fleet.gateway.live.leave("http://127.0.0.1:9")
            with pytest.raises(AtWork):
                async with turn(unit_of(workplace, "a"), 0):
                    pass
            go.set()
            with pytest.raises(NotPossible):
                await stopping
    async with kept(workplace, up=False) as fleet:
        assert fleet.gateway.state("a") is State.STOPPED
        assert text_of(await fleet.gateway.complete("a"))
        assert "crashed" not in fleet.events("a")


async def test_engines_elsewhere_are_not_touched(workplace: Workplace) -> None:
    workplace.write({"model": "far", "engine": "openai", "url": "http://127.0.0.1:9"}, sleep_manager=QUICK)
    async with kept(workplace, up=False) as fleet:
        assert code_of(await fleet.act("stop", "far")) == (409, "not_possible")
        assert code_of(await fleet.act("start", "far")) == (409, "not_possible")


async def test_while_a_launcher_is_at_it_nothing_is_started_beside_it(workplace: Workplace) -> None:
    """Who comes second waits, and takes what the other has started as it is."""
    workplace.write(sim("a", start="stopped"), sleep_manager=QUICK)
    async with kept(workplace, up=False) as fleet:
        async with turn(unit_of(workplace, "a")):
            request = asyncio.create_task(fleet.gateway.complete("a"))
            await fleet.is_("a", State.STARTING)
            launcher = asyncio.create_task(fleet.launch("up", "a"))
            await fleet.looked()
            assert workplace.panes() == {}
        assert text_of(await request)
        assert await launcher == 0
        assert len(workplace.panes()) == 1 and fleet.gateway.state("a") is State.READY


async def test_a_launcher_that_waits_for_other_engines_is_in_nobodys_way(workplace: Workplace) -> None:
    """To load one takes minutes, and a fleet of them hours: who is asked meanwhile is started."""
    workplace.write(sim("a", start="stopped"), sleep_manager=QUICK)
    async with kept(workplace, up=False) as fleet, alone(workplace.file):
        assert text_of(await fleet.gateway.complete("a"))
        fleet.kill("a")
        await until(lambda: fleet.events("a").count("started") == 2)
