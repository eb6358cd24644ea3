"""Engines that die: they come back, with pauses, and not for ever."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any
from unittest import mock

import httpx2
import psutil
import pytest

from controller.fleet import watcher
from controller.fleet.admission import GIVE_UP_AFTER
from controller.fleet.state import Hold, State
from controller.launch.environment import MARKER
from controller.service import open_fleet
from controller.supervisor import policy
from tests.controller.launch.conftest import Workplace, processes_of
from tests.router.gateway import code_of, text_of, until
from tests.router.proxy.scripted import raw
from tests.router.supervision.conftest import kept, sim, wait_for_the_end_of

pytestmark = pytest.mark.anyio

ASLEEP_AT_ONCE = {"min_sleep_duration": 0, "wake_timeout_seconds": 10}


async def test_a_killed_engine_is_back_and_requests_wait_for_it(workplace: Workplace) -> None:
    """With the launcher's own command, environment and session; who asks meanwhile is answered by the new one."""
    workplace.environment |= {"ONLY_HERE": "yes"}
    workplace.write(sim("a", env={"MINE": "1"}), sleep_manager=ASLEEP_AT_ONCE)
    with mock.patch.dict("os.environ", workplace.environment):
        async with kept(workplace) as fleet:
            text_of(await fleet.gateway.complete("a"))
            before = fleet.kill("a")
            await fleet.is_("a", State.STOPPED, State.STARTING)
            assert text_of(await fleet.gateway.complete("a"))
            assert fleet.pid("a") != before
            assert fleet.gateway.instance("a").wakes == {"ok": 1}
            assert [one for one in fleet.events("a") if one in ("crashed", "started", "ready")] == [
                "ready",
                "crashed",
                "started",
                "ready",
            ]
            environment = psutil.Process(fleet.pid("a")).environ()
            assert (environment["MINE"], environment["ONLY_HERE"]) == ("1", "yes")
            assert "differs" not in workplace.output
            assert await fleet.launch("up") == 0
            assert "runs already" in workplace.output
            assert "differs" not in workplace.output


@pytest.mark.parametrize("connected", [False, True])
async def test_who_finds_it_dead_first_waits_for_it_too(workplace: Workplace, connected: bool) -> None:
    """The gateway has had no time to notice, and has a connection to it or not."""
    workplace.write(sim("a"), sleep_manager=ASLEEP_AT_ONCE)
    async with kept(workplace) as fleet:
        await until(lambda: fleet.gateway.instance("a").attended)
        if connected:
            text_of(await fleet.gateway.complete("a"))
        wait_for_the_end_of(fleet.kill("a"))
        assert text_of(await fleet.gateway.complete("a"))
        assert "crashed" in fleet.events("a")


async def test_one_that_tmux_has_not_noticed_is_known_to_be_gone(workplace: Workplace) -> None:
    """Its process is still to be seen, and nobody would look at it for a minute."""
    workplace.write(sim("a"), sleep_manager=ASLEEP_AT_ONCE)
    with mock.patch.object(watcher, "STEADY_SECONDS", 60):
        async with kept(workplace) as fleet:
            engine, pane = fleet.pid("a"), psutil.Process(fleet.workplace.panes()["a"].pid)
            server = pane.ppid()
            os.kill(server, signal.SIGSTOP)
            try:
                os.kill(engine, signal.SIGKILL)
                await fleet.is_("a", State.FAILED)
                await until(lambda: pane.status() == psutil.STATUS_ZOMBIE)
            finally:
                os.kill(server, signal.SIGCONT)
            await fleet.is_("a", State.READY)


async def test_one_that_was_dead_before_the_gateway_came_is_waited_for(workplace: Workplace) -> None:
    """From the first moment on: what the gateway before has passed on is there before the first look."""
    workplace.write(sim("a"), sleep_manager=ASLEEP_AT_ONCE)
    await asyncio.to_thread(workplace.up)
    pane = workplace.panes()["a"].pid
    os.kill(workplace.program("a").pid, signal.SIGKILL)
    await asyncio.to_thread(wait_for_the_end_of, pane)
    async with open_fleet(workplace.config()) as company:
        assert company.fleet.instances["a"].state is State.FAILED
        assert company.fleet.instances["a"].attended
    async with kept(workplace, up=False) as fleet:
        assert text_of(await fleet.gateway.complete("a"))


async def test_what_dies_while_the_gateway_before_still_serves_is_back(workplace: Workplace) -> None:
    """That may take minutes. What runs is left to it, even if it seems to hang."""
    workplace.write(sim("a"), sim("b"), sleep_manager=ASLEEP_AT_ONCE)
    async with kept(workplace) as fleet:
        fleet.gateway.fleet.has_predecessor = True
        silent = fleet.gateway.instance("b")
        silent.silent_since = silent.clock() - policy.SILENT_SECONDS - 1
        fleet.kill("a")
        assert text_of(await fleet.gateway.complete("a"))
        await fleet.looked()
        assert "hung" not in fleet.events("b")
        fleet.gateway.fleet.has_predecessor = False
        await until(lambda: "hung" in fleet.events("b"))


async def test_one_that_dies_again_and_again_in_use_is_waited_for(workplace: Workplace) -> None:
    """It comes up each time: who asks meanwhile is not refused, however many failures the row has."""
    workplace.write(sim("a"), sleep_manager=ASLEEP_AT_ONCE)
    async with kept(workplace) as fleet:
        for failures in range(1, GIVE_UP_AFTER + 2):
            await fleet.looked()
            fleet.kill("a")
            await until(lambda: fleet.events("a").count("crashed") == failures)  # noqa: B023
            assert text_of(await fleet.gateway.complete("a"))


async def test_a_replica_serves_while_the_other_is_started_again(workplace: Workplace) -> None:
    """Not one request fails."""
    workplace.write(sim("a"), {**sim("b"), "model": "a"}, sleep_manager=ASLEEP_AT_ONCE)
    async with kept(workplace) as fleet:
        fleet.kill("a")
        answers = [await fleet.gateway.complete("a") for _ in range(20)]
        assert {answer.status_code for answer in answers} == {200}
        await until(lambda: "crashed" in fleet.events("a"))
        await fleet.is_("a", State.READY)


async def test_one_that_dies_again_and_again_is_given_up_until_somebody_starts_it(workplace: Workplace) -> None:
    """The pauses grow, then a clear 503; by hand it gets its chances again."""
    broken = {"command": [["sh", "-c", "exit 3"]], "engine": "openai"}
    workplace.write({**sim("a"), **broken, "engine_args": []}, sleep_manager=ASLEEP_AT_ONCE)
    with mock.patch.object(policy, "BUDGET", 1):
        async with kept(workplace) as fleet:
            await until(lambda: fleet.gateway.instance("a").hold is Hold.GIVEN_UP)
            assert fleet.gateway.state("a") is State.FAILED
            assert fleet.events("a").count("crashed") == 2
            assert fleet.gateway.instance("a").wakes == {"failed": 1}
            refused = await fleet.gateway.complete("a")
            assert code_of(refused) == (503, "model_failed")
            assert "exit status 3" in refused.text
            assert "/action/start" in refused.text
            assert code_of(await fleet.act("wakeup", "a"))[0] == 409
            assert (await fleet.act("start", "a")).status_code == 200
            await until(lambda: fleet.events("a").count("crashed") == 3)


async def test_what_one_that_is_given_up_has_left_behind_is_ended(workplace: Workplace) -> None:
    """Workers with a session of their own: they hold memory that the ledger promises to others. The pane stays."""
    broken = {"command": [["sh", "-c", "setsid sleep 300 & exit 3"]], "engine": "openai"}
    workplace.write({**sim("a"), **broken, "engine_args": []}, sleep_manager=ASLEEP_AT_ONCE)
    with mock.patch.object(policy, "BUDGET", 1):
        async with kept(workplace) as fleet:
            await until(lambda: fleet.gateway.instance("a").hold is Hold.GIVEN_UP)
            await until(lambda: not processes_of(workplace.folder))
            assert workplace.panes()["a"].status == "exit status 3"


async def test_one_that_died_asleep_is_started_by_its_next_request(workplace: Workplace) -> None:
    """Nobody wanted it: it takes no memory until somebody does."""
    workplace.write(sim("a"), sleep_manager=ASLEEP_AT_ONCE)
    async with kept(workplace) as fleet:
        await fleet.gateway.put_to_sleep("a")
        await fleet.looked()
        fleet.kill("a")
        await until(lambda: "crashed" in fleet.events("a"))
        assert "started" not in fleet.events("a")
        assert text_of(await fleet.gateway.complete("a"))


async def test_one_that_others_would_have_to_leave_for_rests_until_it_is_asked_for(workplace: Workplace) -> None:
    """What it has left behind, such as workers that hold memory, is ended; nobody leaves for it before that."""
    takes: dict[str, Any] = {"gpus": [0], "memory_gib": 60}
    patient = {"min_awake_seconds": 0, "max_wait_seconds": 60}
    room: dict[str, Any] = {"gpus": {0: {"memory_gib": 80}}, "residency": patient, "sleep_manager": ASLEEP_AT_ONCE}
    workplace.write(sim("a", **takes), sim("b", start="stopped", **takes), **room)
    async with kept(workplace) as fleet:
        url = fleet.gateway.instance("a").config.spec.base_url
        silent = {"silent_after_tokens": {"tokens": 2, "times": 1}}
        assert (await fleet.gateway.client.post(f"{url}/sim/faults", json=silent)).status_code == 200
        mark = {MARKER: psutil.Process(fleet.pid("a")).environ()[MARKER]}
        worker = await asyncio.create_subprocess_exec("sleep", "300", env={**os.environ, **mark})
        async with raw(fleet.gateway) as stream:
            await stream.post("/v1/completions", {"model": "a", "prompt": "x", "stream": True})
            await stream.head()
            waiting = asyncio.create_task(fleet.gateway.complete("b"))
            await until(lambda: bool(fleet.gateway.live.arbiter.waiting))
            fleet.kill("a")
            assert text_of(await waiting)
        await worker.wait()
        await until(lambda: "stopped" in fleet.events("a"))
        assert await fleet.launch("status") == 0
        assert "stopped until it is asked for" in workplace.output
        assert (fleet.gateway.state("a"), fleet.gateway.state("b")) == (State.STOPPED, State.READY)
        assert text_of(await fleet.gateway.complete("a"))
        assert fleet.gateway.state("b") is State.ASLEEP


async def test_what_the_file_does_not_want_restarted_stays_dead(workplace: Workplace) -> None:
    workplace.write(sim("a"), launch={"restart": False}, sleep_manager=ASLEEP_AT_ONCE)
    async with kept(workplace) as fleet:
        fleet.kill("a")
        await fleet.is_("a", State.FAILED)
        assert code_of(await fleet.gateway.complete("a")) == (502, "engine_unreachable")


async def test_nobody_is_replaced_because_the_gateway_was_stopped(workplace: Workplace) -> None:
    """By a signal, or with its container: for so long it has seen no answer of anybody."""
    workplace.write(sim("a"), sleep_manager=ASLEEP_AT_ONCE)
    async with kept(workplace) as fleet:
        a, clock = fleet.gateway.instance("a"), fleet.gateway.fleet.clock
        await fleet.looked()
        stood_still = 2 * policy.UNHEALTHY_SECONDS
        fleet.gateway.fleet.clock = a.clock = lambda: clock() + stood_still
        assert a.clock() - a.looked_at > policy.UNHEALTHY_SECONDS
        await fleet.looked()
        assert "hung" not in fleet.events("a")
        assert fleet.gateway.state("a") is State.READY


async def test_a_hung_one_is_replaced(workplace: Workplace) -> None:
    """It lives, has a request and does nothing: its process is ended, and a new one serves."""
    workplace.write(sim("a"), sleep_manager=ASLEEP_AT_ONCE)
    async with kept(workplace) as fleet:
        hung = fleet.pid("a")
        url = fleet.gateway.instance("a").config.spec.base_url
        async with httpx2.AsyncClient(trust_env=False) as client:
            (await client.post(f"{url}/sim/faults", json={"hang": {}})).raise_for_status()
        lost = asyncio.create_task(fleet.gateway.complete("a"))
        await until(lambda: fleet.gateway.instance("a").in_flight == 1)
        fleet.gateway.instance("a").silent_since = fleet.gateway.instance("a").clock() - policy.SILENT_SECONDS - 1
        await until(lambda: "hung" in fleet.events("a"))
        await until(lambda: fleet.gateway.state("a") is State.READY)
        assert fleet.pid("a") != hung
        assert fleet.gateway.instance("a").silent_since is None  # or the new one would be taken for hung, too
        assert text_of(await lost)  # its answer had not begun
