"""What an engine can do wrong, and what its client is told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import yaml

from controller.config.load import load
from controller.config.schema import TimeoutSection
from router.app import create_app
from router.proxy.pool import Pool
from tests.router.gateway import SGLANG, VLLM, Spec, code_of, replica_of, served, until, whole
from tests.router.proxy.scripted import Received, answer, chunk, raw, scripted
from tests.runtime.engines.sim.stage import program

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_door")]

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = {"model": "one", "prompt": "x", "max_tokens": 5}


SOON = {"timeouts": {"connect": 0.5, "first_byte": 0.6, "idle": 0.3}}
"""Engines are given up after fractions of a second."""


@pytest.mark.parametrize("options", [VLLM, SGLANG], ids=["vllm", "sglang"])
async def test_faults_have_their_status_and_code(tmp_path: Path, options: object) -> None:
    """Each tells the client what happened, is counted as failed, and the next request is served."""
    cases = {
        "hang": (504, "engine_timeout"),
        "garbage": (502, "engine_disconnected"),
    }
    spec = Spec("one", options, SOON)  # type: ignore[arg-type]
    async with whole(tmp_path, spec) as gateway:
        sim = gateway.sims["one"]
        for failed, (fault, expected) in enumerate(cases.items(), 1):
            for stream in (False, True):
                sim.fault(**{fault: {"times": 1}})
                reply = await gateway.complete("one", stream=stream)
                assert code_of(reply) == expected, fault
                assert reply.headers["x-torpor-error-source"] == "gateway"
                assert (await gateway.complete("one")).status_code == 200
            assert gateway.live.traffic.models["one"].outcomes["failed"] == 2 * failed  # type: ignore[index]
            assert gateway.in_flight == 0
        sim.fault(refuse={"times": 1, "status": 429, "body": {"error": "full"}, "retry_after": 3})
        refused = await gateway.complete("one")
        assert (refused.status_code, refused.json(), refused.headers["retry-after"]) == (429, {"error": "full"}, "3")
        sim.fault(short_body={"times": 1})
        with pytest.raises(httpx2.RemoteProtocolError):
            await gateway.complete("one")
        assert gateway.live.traffic.models["one"].outcomes["failed"] == 6  # type: ignore[index]
        sim.fault(silent_after_tokens={"tokens": 2, "times": 1})
        async with raw(gateway) as client:
            await client.post("/v1/completions", BODY | {"stream": True})
            rest = await client.rest()
        assert b"engine_timeout" in rest
        assert b"[DONE]" not in rest
        await until(lambda: gateway.in_flight == sim.running == 0)


async def test_a_quiet_engine_that_goes_on_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses shorter than the limits add up to a long answer; a longer one ends it."""
    now = 0.0
    for module in ("pool", "upstream"):
        monkeypatch.setattr(f"router.proxy.{module}.monotonic", lambda: now)
    said: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(await said.get())

    async with scripted(tmp_path, script) as (gateway, _), raw(gateway) as client:
        pool = gateway.live.pools[gateway.instance("one")]
        await client.post("/v1/completions", BODY | {"stream": True})
        said.put_nowait(STREAM)
        await client.head()
        for piece in range(6):
            said.put_nowait(chunk(b"data: %d\n\n" % piece))
            await client.reader.readuntil(b"data: %d\n\n" % piece)
            pool.sweep()  # it was heard
            now += 0.9 * pool.timeouts.idle
            pool.sweep()
        now += 0.2 * pool.timeouts.idle
        pool.sweep()
        assert b"engine_timeout" in await client.rest()


async def test_what_holds_up_the_gateway_is_not_the_engine_s_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped, and what had come meanwhile was still to be read as it looked at the clock."""
    now, swept = 0.0, asyncio.Event()
    for module in ("pool", "upstream"):
        monkeypatch.setattr(f"router.proxy.{module}.monotonic", lambda: now)
    sweep = Pool.sweep

    def swept_then(pool: Pool, *of: float) -> None:
        sweep(pool, *of)
        swept.set()

    monkeypatch.setattr(Pool, "sweep", swept_then)

    async def next_sweep() -> None:
        swept.clear()
        await swept.wait()

    go_on = asyncio.Event()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(b"data: 1\n\n"))
        await go_on.wait()
        writer.write(chunk(b"data: 2\n\n"))
        await asyncio.Event().wait()

    timeouts = {"timeouts": {"idle": 0.3, "total": 10}}
    async with scripted(tmp_path, script, timeouts) as (gateway, _), raw(gateway) as client:
        await client.post("/v1/completions", BODY | {"stream": True})
        await client.reader.readuntil(b"data: 1\n\n")
        await next_sweep()
        now += 1000.0  # the sweeper sleeps, as it does whenever anybody else runs
        await next_sweep()
        go_on.set()
        await client.reader.readuntil(b"data: 2\n\n")
        await next_sweep()
        now += 0.4
        gateway.live.pools[gateway.instance("one")].sweep()
        assert b"engine_timeout" in await client.rest()


async def test_an_answer_has_all_the_time_it_is_given(tmp_path: Path) -> None:
    """``total``: an answer that takes longer is ended, however steadily it comes; without it, it is not."""
    slow = replace(VLLM, tokens_per_second=20.0)
    limited = Spec("limited", slow, {"timeouts": {"total": 0.5}})
    async with whole(tmp_path, limited, Spec("free", slow)) as gateway:
        async with raw(gateway) as client:
            await client.post("/v1/completions", BODY | {"model": "limited", "stream": True, "max_tokens": 40})
            rest = await client.rest()
        assert b"engine_timeout" in rest
        assert b"[DONE]" not in rest
        assert (await gateway.complete("free", stream=True, max_tokens=20)).text.endswith("[DONE]\n\n")
        assert gateway.in_flight == 0


@pytest.mark.parametrize("first", [True, False])
async def test_engine_process_that_dies(tmp_path: Path, first: bool) -> None:
    """Before an answer: 502; in mid-stream: the answer is not whole; afterwards: 502 at once. All count as failed."""
    with program("--tokens-per-second", "0") as (url, process):
        file = tmp_path / "torpor.yaml"
        one = {"name": "one", "model": "org/tiny", "engine": "sim", "url": url}
        file.write_text(yaml.safe_dump({"instances": [one]}))
        async with (
            served(create_app(load(file, {}))) as address,
            httpx2.AsyncClient(base_url=address, trust_env=False, timeout=10) as client,
        ):
            body = BODY | {"model": "org/tiny"}
            assert (await client.post("/v1/completions", json=body)).status_code == 200
            async with httpx2.AsyncClient(base_url=url, trust_env=False) as engine:
                await engine.post("/sim/faults", json={"crash": {"tokens": 0 if first else 2}})
            if first:
                assert code_of(await client.post("/v1/completions", json=body)) == (502, "engine_disconnected")
            else:
                with pytest.raises(httpx2.RemoteProtocolError):
                    await client.post("/v1/completions", json=body | {"stream": True})
            await asyncio.to_thread(process.wait, 10)  # until then the kernel still takes connections for it
            assert code_of(await client.post("/v1/completions", json=body)) == (502, "engine_unreachable")
            stats = (await client.get("/traffic/stats")).json()["traffic_stats"]["org/tiny"]
            assert (stats["failed_requests"], stats["in_flight_requests"]) == (2, 0)


async def test_a_request_that_kills_engines_kills_one(tmp_path: Path) -> None:
    """It was sent: whatever came of it, it is not tried on another replica, nor again and again on this one."""
    seen: list[str] = []

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if b"poison" in request.body:
            seen.append("poison")
            writer.transport.abort()
        else:
            await asyncio.sleep(0.05)
            writer.write(answer(b"{}"))

    async with scripted(tmp_path, script) as (gateway, engine):
        await asyncio.gather(*(gateway.client.post("/v1/completions", json=BODY) for _ in range(5)))
        assert engine.connections >= 5
        killed = await gateway.client.post("/v1/completions", json=BODY | {"prompt": "poison"})
        assert code_of(killed) == (502, "engine_disconnected")
        assert len(seen) <= 2
        assert (await gateway.client.post("/v1/completions", json=BODY)).status_code == 200


async def test_replica_that_cannot_be_reached_is_passed_over(tmp_path: Path) -> None:
    """Nothing was sent to it: the other one answers."""
    async with whole(tmp_path, replica_of("m", "a"), replica_of("m", "b")) as gateway:
        pool = gateway.live.pools[gateway.instance("a")]
        gateway.live.pools[gateway.instance("a")] = type(pool)("http://127.0.0.1:1", TimeoutSection())
        answers = [await gateway.complete("m") for _ in range(4)]
        assert [one.status_code for one in answers] == [200] * 4
        assert {one.headers["x-torpor-instance"] for one in answers} == {"b"}
        assert gateway.in_flight == 0


async def test_connections_are_used_again_until_they_are_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other on one connection; after a rest near the engine's own limit on a new one."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for _ in range(5):
            assert (await gateway.client.post("/v1/completions", json=BODY)).status_code == 200
        assert len({request.connection for request in engine.received}) == 1
        monkeypatch.setattr("router.proxy.pool.IDLE_SECONDS", 0.0)
        assert (await gateway.client.post("/v1/completions", json=BODY)).status_code == 200
        assert engine.received[-1].connection != engine.received[0].connection
        await until(lambda: len(engine.open) <= 1)


async def test_engine_that_closes_kept_connections_is_asked_on_a_new_one(tmp_path: Path) -> None:
    """Whether it said so or not, no request fails."""
    said = False

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"{}", "200 OK", *(["Connection: close"] if said else [])))
        await writer.drain()
        writer.close()

    async with scripted(tmp_path, script) as (gateway, engine):
        for said in (True, False):  # noqa: B007
            for _ in range(20):
                assert (await gateway.client.post("/v1/completions", json=BODY)).status_code == 200
        assert len(engine.received) == 40
