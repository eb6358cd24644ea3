"""Gateways that take over from one another behind one socket: no request is lost, and no engine is touched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from controller.config.load import load
from controller.fleet import fleet
from controller.residency import arbiter
from controller.residency.decision import Outcome, decide
from controller.service import open_fleet
from router import succession
from router.proxy.headers import ASKED
from tests.ports import free_port
from tests.router.adapters.stage import LORA, applied, artifact
from tests.router.gateway import (
    AT_ONCE,
    VLLM,
    Sim,
    Spec,
    code_of,
    engines,
    gateway,
    replica_of,
    text_of,
    until,
    write_yaml,
)
from tests.router.residency.test_room import SETTINGS, of

pytestmark = pytest.mark.anyio

RESTARTS = int(os.environ.get("TORPOR_TEST_RESTARTS", "3"))
SLOW = replace(VLLM, tokens_per_second=100)
PATIENCE = 40.0


@dataclass
class Program:
    """``python -m router``. ``gateways``: the pids of those that run below it."""

    process: asyncio.subprocess.Process
    client: httpx2.AsyncClient
    file: Path
    log: Path
    seen: set[int] = field(default_factory=set)

    def gateways(self) -> list[int]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.process.pid).children()]
        return []

    async def renew(self) -> None:
        """Have the next gateway take over, and wait until the one before it has ended."""
        before = self.gateways()
        self.process.send_signal(signal.SIGUSR2)
        await self.reaches(lambda now: len(now) == 1 and now != before)

    async def reaches(self, condition: Any) -> None:
        await until(lambda: bool(condition(self.gateways())), PATIENCE)

    async def wait_in_line(self) -> float:
        """Wait until a model waits for room. Returns for how long it has done so."""
        async with asyncio.timeout(PATIENCE):
            while not (waiting := (await self.client.get("/residency")).json()["waiting"]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return float(waiting[0]["waited_seconds"])

    async def ask(self, model: str, *, client: httpx2.AsyncClient | None = None, **fields: Any) -> httpx2.Response:
        body = {"model": model, "prompt": "Once upon a time", "max_tokens": 8} | fields
        return await (client or self.client).post("/v1/completions", json=body)


@contextlib.asynccontextmanager
async def program(folder: Path, sims: dict[str, Sim], **sections: Any) -> AsyncIterator[Program]:
    file, port = write_yaml(folder, [sim.spec.entry(sim.url) for sim in sims.values()], **sections), free_port()
    log = folder / "log"
    with log.open("wb") as sink:
        words = ("-m", "router", "--config", str(file), "--port", str(port))
        process = await asyncio.create_subprocess_exec(sys.executable, *words, stderr=sink)
    try:
        once = httpx2.Limits(max_keepalive_connections=0)  # one that is kept would keep the gateway that leaves
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False, limits=once) as client:
            running = Program(process, client, file, log)
            async with asyncio.timeout(PATIENCE):
                while True:
                    with contextlib.suppress(httpx2.ConnectError):
                        await client.get("/health")
                        break
                    await asyncio.sleep(0.05)
            yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


class Load:
    """Clients that ask all the time, on connections that are kept and on new ones, streaming and not."""

    def __init__(self, running: Program, *models: str) -> None:
        self.running = running
        self.models = models
        self.failed: list[str] = []
        self.answered = 0
        self._over = False

    async def __aenter__(self) -> Load:
        kinds = [(model, stream, keep) for model in self.models for stream in (False, True) for keep in (False, True)]
        self._clients = [asyncio.create_task(self._ask(*kind)) for kind in kinds]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._clients)

    async def more(self, answers: int) -> None:
        wanted = self.answered + answers
        await until(lambda: self.answered >= wanted, PATIENCE)

    async def _ask(self, model: str, stream: bool, keep: bool) -> None:
        limits = httpx2.Limits(max_keepalive_connections=None if keep else 0)
        base = self.running.client.base_url
        async with httpx2.AsyncClient(base_url=base, timeout=PATIENCE, trust_env=False, limits=limits) as client:
            while not self._over:
                try:
                    answer = await self.running.ask(model, client=client, stream=stream)
                    if answer.status_code != 200 or (stream and "[DONE]" not in answer.text):
                        self.failed.append(f"{answer.status_code} {answer.text}")
                    self.answered += 1
                except httpx2.HTTPError as lost:
                    self.failed.append(repr(lost))


@pytest.mark.timeout(60 + 10 * RESTARTS)
async def test_no_request_fails_and_no_engine_is_touched(tmp_path: Path) -> None:
    """Many times under load, and a long stream that runs through the first of them comes whole.

    TORPOR_TEST_RESTARTS says how many times.
    """
    specs = (replica_of("m", "a"), replica_of("m", "b"), Spec("long", SLOW))
    async with engines(*specs) as sims, program(tmp_path, sims) as running:
        long = asyncio.create_task(running.ask("long", max_tokens=150, stream=True))
        await until(lambda: sims["long"].running == 1)
        async with Load(running, "m") as load:
            await load.more(10)
            for _ in range(RESTARTS):
                await running.renew()
                await load.more(10)
        assert load.failed == []
        whole = (await long).text
        assert whole.count("data: ") >= 150
        assert whole.rstrip().endswith("[DONE]")
        for sim in sims.values():
            assert sim.count("sleep_calls") == sim.count("wake_calls") == sim.count("aborted_requests") == 0


async def test_who_waits_is_passed_on(tmp_path: Path) -> None:
    """A request that waits for a model that is asleep is answered, though the gateway that took it leaves."""
    async with engines(Spec("one"), Spec("two")) as sims, program(tmp_path, sims) as running:
        assert (await running.client.post("/model/sleep/one")).status_code == 200
        sims["one"].fault(slow_wake={"seconds": 1.5, "times": 1})
        waiting = asyncio.create_task(running.ask("one"))
        await until(lambda: sims["one"].count("wake_calls") == 1)
        await running.renew()
        answer = await waiting
        assert answer.status_code == 200, answer.text


async def test_what_is_not_sent_yet_goes_to_the_next(tmp_path: Path) -> None:
    """From the queue, from a sleep, and what still comes: all of it is answered, by the next gateway's word."""
    sections: dict[str, Any] = {"models": {"one": {"max_in_flight": 1}}, "sleep_manager": {"min_sleep_duration": 60}}
    (tmp_path / "next").mkdir()
    async with (
        engines(Spec("one"), Spec("two", yaml={"aliases": ["zwei"]})) as sims,
        gateway(tmp_path / "next", sims) as following,
        gateway(tmp_path, sims, **sections) as left,
    ):
        await left.put_to_sleep("two")
        sims["one"].engine.scheduler.freeze()
        asked = [asyncio.create_task(left.complete("one")) for _ in range(4)]
        asked += [asyncio.create_task(left.complete(name)) for name in ("two", "zwei")]
        await until(lambda: len(left.live.queues["one"].waiters) == 3 and left.live.traffic.models["two"].waiting == 2)
        await following.wake("two", force=True)
        await left.live.leave(following.url)
        sims["one"].engine.scheduler.thaw()
        asked += [asyncio.create_task(left.complete("zwei")) for _ in range(2)]
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
        assert following.live.traffic.models["two"].total == 4
        assert following.live.traffic.models["one"].total == 3
        assert left.live.pools.keys() == set(left.fleet.instances.values())
        for method, path in (("POST", "reload"), ("POST", "drain/one"), ("POST", "admit/one")):
            refused = await left.client.request(method, f"/admin/{path}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "gateway_stopping")
        assert left.in_flight == 0


async def test_who_has_waited_for_long_waits_no_longer_at_the_next(tmp_path: Path) -> None:
    """Its deadline is counted from when it was asked, not from when it was passed on."""
    (tmp_path / "next").mkdir()
    patient = {**AT_ONCE, "wake_timeout_seconds": 1e9}
    async with (
        engines(Spec("one")) as sims,
        gateway(tmp_path / "next", sims) as following,  # its own patience is as long as a test may take, and longer
        gateway(tmp_path, sims, sleep_manager=patient) as left,
    ):
        await left.put_to_sleep("one")
        await following.fleet.transitions["one"].observe_now()
        held = [one.hold_wake("one") for one in (left, following)]
        left.client.headers[ASKED.decode()] = "0.001"
        waiting = asyncio.create_task(left.complete("one"))
        await until(lambda: left.live.traffic.models["one"].waiting == 1)
        await left.live.leave(following.url)
        assert code_of(await waiting) == (503, "wake_timeout")
        for wake in held:
            wake.set()


async def test_who_waits_for_room_gets_it_from_the_next(tmp_path: Path) -> None:
    """The one that leaves has nothing but that in flight, and is not waited for: it would wait for that itself."""
    patient = {**SETTINGS, "residency": {"min_awake_seconds": 0, "max_wait_seconds": 60}}
    async with engines(of("busy", 60), of("cold", 60)) as sims, program(tmp_path, sims, **patient) as running:
        assert (await running.client.post("/model/sleep/cold")).status_code == 200
        generating = sims["busy"].engine.scheduler
        generating.freeze()
        busy = asyncio.create_task(running.ask("busy"))
        await until(lambda: generating.size == 1)
        cold = asyncio.create_task(running.ask("cold"))
        await running.wait_in_line()
        asked_at = asyncio.get_running_loop().time()
        renewing = asyncio.create_task(running.renew())
        await until(lambda: "takes over" in running.log.read_text(), PATIENCE)
        waits = asyncio.get_running_loop().time() - asked_at
        assert await running.wait_in_line() >= waits, "it waits since it was asked, not since it was passed on"
        generating.thaw()
        await renewing
        assert text_of(await busy)
        assert text_of(await cold)


async def test_adapters_are_asked_for_at_the_next(tmp_path: Path) -> None:
    """A gateway that leaves passes them on under their own names."""
    (tmp_path / "next").mkdir()
    async with (
        engines(Spec("base", LORA)) as sims,
        gateway(tmp_path / "next", sims) as following,
        gateway(tmp_path, sims) as left,
    ):
        path = artifact(tmp_path, "sql")
        await applied(left, "sql", path)
        await applied(following, "sql", path)
        said = text_of(await left.complete("sql"))
        await left.live.leave(following.url)
        assert text_of(await left.complete("sql")) == said
        assert following.live.traffic.models["base"].total == 1


async def test_nothing_sleeps_under_those_who_are_still_served(tmp_path: Path) -> None:
    """As long as the gateway before it has requests in flight, the next one puts nothing to sleep."""
    sleep = {**AT_ONCE, "drain_timeout_seconds": 0.5}
    async with engines(Spec("one")) as sims, program(tmp_path, sims, sleep_manager=sleep) as running:
        generating = sims["one"].engine.scheduler
        generating.freeze()
        long = asyncio.create_task(running.ask("one"))
        await until(lambda: generating.size == 1)
        before = running.gateways()
        running.process.send_signal(signal.SIGUSR2)
        await until(lambda: "takes over" in running.log.read_text(), PATIENCE)
        refused = await running.client.post("/model/sleep/one")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "still_busy")
        assert before[0] in running.gateways()
        generating.thaw()
        assert text_of(await long)
        await running.reaches(lambda now: before[0] not in now)
        assert (await running.client.post("/model/sleep/one")).status_code == 200
        assert sims["one"].count("requests_while_asleep") == 0


@pytest.mark.parametrize("path", ["/health", "/events?stream=true&after=0"])
async def test_who_keeps_a_connection_is_told_to_close_it(tmp_path: Path, path: str) -> None:
    """Whatever is asked on it: else whoever asks again and again would never see the next gateway."""
    async with (
        engines(Spec("one", SLOW)) as sims,
        program(tmp_path, sims) as running,
        httpx2.AsyncClient(base_url=running.client.base_url, timeout=PATIENCE, trust_env=False) as keeping,
    ):
        assert "connection" not in (await keeping.get("/health")).headers
        long = asyncio.create_task(running.ask("one", max_tokens=200))
        await until(lambda: sims["one"].running == 1)
        running.process.send_signal(signal.SIGUSR2)
        await until(lambda: "takes over" in running.log.read_text(), PATIENCE)
        async with keeping.stream("GET", path) as told:
            assert told.headers["connection"] == "close"
        assert (await long).status_code == 200


async def test_a_gateway_that_is_told_itself_has_the_next_one_take_over(tmp_path: Path) -> None:
    """Whoever looks for what listens at the port finds both processes."""
    async with engines(Spec("one")) as sims, program(tmp_path, sims) as running:
        before = running.gateways()
        os.kill(before[0], signal.SIGUSR2)
        await running.reaches(lambda now: len(now) == 1 and now != before)
        assert (await running.ask("one")).status_code == 200
        assert "killed by signal" not in running.log.read_text()


async def test_one_that_has_just_ended_keeps_no_signal_from_the_others() -> None:
    """Whoever is to stop as one ends would else serve on for ever."""
    ended = await asyncio.create_subprocess_exec("true")
    running = await asyncio.create_subprocess_exec("sleep", "60")
    await ended.wait()
    for process in (ended, running):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            succession.Gateway(process, ours).send(signal.SIGTERM)
    assert await running.wait() == -signal.SIGTERM


async def test_nobody_leaves_while_the_next_one_still_looks_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is awake than there is room for, and an engine answers late. Who is busy there it cannot see yet."""
    monkeypatch.setattr(fleet, "FIRST_LOOK_SECONDS", 0.3)
    monkeypatch.setattr(arbiter, "SUM_SECONDS", 0.01)
    found: list[Outcome] = []

    def noted(*of: Any) -> Outcome:
        found.append(decide(*of))
        return found[-1]

    monkeypatch.setattr(arbiter, "decide", noted)
    late = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    writers: list[asyncio.StreamWriter] = []
    url = f"http://127.0.0.1:{late.sockets[0].getsockname()[1]}"
    async with engines(of("a", 60), of("b", 60)) as sims, late:
        entries = [*(sim.spec.entry(sim.url) for sim in sims.values()), Spec("late").entry(url)]
        config = load(write_yaml(tmp_path, entries, **SETTINGS), {})
        async with open_fleet(config, has_predecessor=True) as company:
            assert company.arbiter.books().is_overdrawn
        for writer in writers:
            writer.close()
    assert found and [one.steps for one in found if one.steps] == []


async def test_one_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    """A broken YAML: the gateway that serves serves on, and the log says why."""
    async with engines(Spec("one")) as sims, program(tmp_path, sims) as running:
        serving = running.gateways()
        good = running.file.read_text()
        running.file.write_text("rooter: {}\n")
        running.process.send_signal(signal.SIGUSR2)
        await until(lambda: "serves on" in running.log.read_text(), PATIENCE)
        assert "unknown key" in running.log.read_text()
        assert (await running.ask("one")).status_code == 200
        assert running.gateways() == serving
        running.file.write_text(good)
        await running.renew()
        assert (await running.ask("one")).status_code == 200


async def test_one_that_is_killed_is_replaced(tmp_path: Path) -> None:
    """Whoever comes meanwhile waits; and when the keeper of the socket is killed, so is all below it."""
    async with engines(Spec("one")) as sims, program(tmp_path, sims) as running:
        [serving] = running.gateways()
        os.kill(serving, signal.SIGKILL)
        await running.reaches(lambda now: serving not in now)
        assert (await running.ask("one")).status_code == 200
        [serving] = running.gateways()
        running.process.kill()
        await until(lambda: not psutil.pid_exists(serving), PATIENCE)


@pytest.mark.parametrize("stage", ["next", "first"])
async def test_killed_in_between(tmp_path: Path, stage: str) -> None:
    """Whichever of the two dies while one takes over from the other, requests are answered."""
    async with engines(Spec("one")) as sims, program(tmp_path, sims) as running:
        [first] = running.gateways()
        running.process.send_signal(signal.SIGUSR2)
        await running.reaches(lambda now: len(now) == 2)
        [following] = set(running.gateways()) - {first}
        os.kill(following if stage == "next" else first, signal.SIGKILL)
        await running.reaches(lambda now: len(now) == 1)
        assert (await running.ask("one")).status_code == 200
