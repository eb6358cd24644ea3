"""A client that leaves frees its place at once; those who wait come first come first served."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from tests.patience import until
from tests.runtime.engines.sim.stage import QUICK, SLOW, SLOW_SGLANG, Sim, stage, value_of

pytestmark = pytest.mark.anyio


async def leave(sim: Sim, *, stream: bool) -> None:
    """Start a long reply, and leave while it runs."""
    request = asyncio.create_task(sim.complete(max_tokens=1000, stream=stream))
    await sim.until_running()
    request.cancel()


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_frees_its_place(stream: bool) -> None:
    """At once; counted as aborted and under no finished_reason."""
    async with stage(SLOW) as sim:
        await leave(sim, stream=stream)
        await until(lambda: not sim.engine.scheduler.running)
        metrics = await sim.metrics()
    assert metrics["sim:aborted_requests_total"] == 1
    assert value_of(metrics, "vllm:request_success_total") == 0


async def test_client_that_leaves_the_queue_is_forgotten() -> None:
    """A waiting request whose client left never runs."""
    async with stage(replace(SLOW, max_num_seqs=1)) as sim:
        running = asyncio.create_task(sim.complete(max_tokens=1000, stream=True))
        await sim.until_running()
        waiting = asyncio.create_task(sim.complete(stream=True))
        await until(lambda: len(sim.engine.scheduler.waiting) == 1)
        waiting.cancel()
        await until(lambda: not sim.engine.scheduler.waiting)
        running.cancel()
        await until(lambda: sim.engine.scheduler.size == 0)
        assert (await sim.metrics())["sim:aborted_requests_total"] == 2


async def test_sglang_notices_late_when_nothing_is_streamed() -> None:
    """The reply outlives its client by --abort-lag."""
    async with stage(replace(SLOW_SGLANG, abort_lag=0.2)) as sim:
        left = time.monotonic()
        await leave(sim, stream=False)
        await until(lambda: not sim.engine.scheduler.running)
        assert time.monotonic() - left > 0.15


async def test_requests_above_the_limit_wait_in_line() -> None:
    """One runs, the rest wait in num_requests_waiting, and they end in order."""
    order: list[int] = []
    async with stage(replace(QUICK, tokens_per_second=20, max_num_seqs=1)) as sim:

        async def ask(number: int) -> None:
            await sim.complete(max_tokens=6)
            order.append(number)

        requests: list[asyncio.Task[None]] = []

        def all_there() -> bool:
            return sim.engine.scheduler.size + len(order) == len(requests)

        for number in range(3):
            requests.append(asyncio.create_task(ask(number)))
            await until(all_there)
        metrics = await sim.metrics()
        await asyncio.gather(*requests)
    assert value_of(metrics, "vllm:num_requests_running") == 1
    assert value_of(metrics, "vllm:num_requests_waiting") == 2
    assert order == [0, 1, 2]


async def test_full_engine_answers_503() -> None:
    """--max-num-queued-reqs counts running and waiting; no Retry-After; /health stays 200."""
    async with stage(replace(SLOW, max_num_queued_reqs=1)) as sim:
        running = asyncio.create_task(sim.complete(max_tokens=1000))
        await sim.until_running()
        answer = await sim.complete()
        assert (await sim.get("/health")).status_code == 200
        metrics = await sim.metrics()
        running.cancel()
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "Service Unavailable")
    assert "retry-after" not in answer.headers
    assert value_of(metrics, "vllm:admission_rejections_total") == 1


async def test_tokens_keep_to_their_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop blocked for 0.3 s delays no later token: what fell due meanwhile comes at once."""
    said: list[int] = []
    async with stage(replace(QUICK, ttft=0.05, tokens_per_second=200)) as sim:
        monkeypatch.setattr(sim.engine.page, "said", said.append)
        request = asyncio.create_task(sim.complete(max_tokens=60))
        await sim.until_running()
        time.sleep(0.3)  # noqa: ASYNC251 - blocking is the point
        await request
    assert sum(said) == 60
    assert len(said) < 30


async def test_hundreds_of_streams_at_once() -> None:
    """300 clients, each with all its tokens."""
    async with stage(replace(QUICK, ttft=0.5, tokens_per_second=50, max_num_seqs=1000)) as sim:
        connections = [asyncio.open_connection("127.0.0.1", sim.port) for _ in range(300)]
        pairs = await asyncio.gather(*connections)
        body = b'{"prompt":"x","max_tokens":10,"stream":true}'
        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        for _, writer in pairs:
            writer.write(head % len(body) + body)
        await until(lambda: len(sim.engine.scheduler.running) == 300)
        assert sim.engine.connections.count >= 300
        answers = await asyncio.gather(*(reader.read() for reader, _ in pairs))
        for _, writer in pairs:
            writer.close()
    assert {answer.count(b"data: ") for answer in answers} == {11}
