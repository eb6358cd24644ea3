"""A client that leaves takes its request with it, in whatever phase."""

from __future__ import annotations

import asyncio
import gc
import random
import re
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from router.traffic.monitor import Outcome
from tests.router.gateway import VLLM, Gateway, Spec, engines, gateway, until, whole
from tests.router.proxy.scripted import raw

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_door")]

SLOW = replace(VLLM, tokens_per_second=20.0)
LATE = replace(VLLM, ttft=30.0)
LONG = {"model": "one", "prompt": "x", "max_tokens": 2000}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("first_byte", [True, False])
async def test_engine_is_told_at_once(tmp_path: Path, stream: bool, first_byte: bool) -> None:
    """At once, streaming or not, before the first byte and after it; counted as cancelled."""
    if first_byte and not stream:
        return  # its first byte is its last
    async with whole(tmp_path, Spec("one", SLOW if first_byte else LATE)) as running:
        sim = running.sims["one"]
        async with raw(running) as client:
            await client.post("/v1/completions", LONG | {"stream": stream})
            if first_byte:
                await client.head()
                await client.reader.readuntil(b"data: ")
            await until(lambda: sim.running == 1)
            client.writer.transport.abort()
            await until(lambda: sim.count("aborted_requests") == 1)  # long before all was said
        await until(lambda: running.in_flight == 0)
        traffic = running.live.traffic.models["one"]
        assert {outcome.value: count for outcome, count in traffic.outcomes.items()} == {
            "successful": 0, "failed": 0, "cancelled": 1,
        }  # fmt: skip
        assert traffic.statuses == {"4xx": 1}
        assert sim.running == 0


async def test_leaving_while_waiting_for_a_wake(tmp_path: Path) -> None:
    """The gauge goes back, the model wakes all the same, the engine never sees the request."""
    async with whole(tmp_path, Spec("one", replace(VLLM, wake_seconds=0.5))) as running:
        await running.put_to_sleep("one")
        async with raw(running) as client:
            await client.post("/v1/completions", LONG)
            await until(lambda: running.live.traffic.models["one"].waiting == 1)
        await until(lambda: running.in_flight == 0)
        assert running.live.traffic.models["one"].wait.count == 1
        await until(lambda: running.state("one") == "ready")
        assert running.sims["one"].count("requests") == 0


async def test_three_hundred_clients_leave_at_random_moments(tmp_path: Path) -> None:
    """All gauges are back at 0, every generation has ended, no task and no connection is left."""
    chance = random.Random(1)
    async with engines(Spec("one", replace(VLLM, ttft=0.1, tokens_per_second=50.0, max_num_seqs=1000))) as sims:
        connections = sims["one"].engine.connections
        async with gateway(tmp_path, sims) as running:
            await running.complete("one")
            before = len(asyncio.all_tasks())
            sockets = len(psutil.Process().net_connections("tcp"))
            await asyncio.gather(*(_visit(running, chance.uniform(0, 0.6), chance.random() < 0.5) for _ in range(300)))
            await until(lambda: running.in_flight == 0)
            await until(lambda: sims["one"].running == 0)
            await until(lambda: len(asyncio.all_tasks()) <= before)
            await asyncio.sleep(0)
            gc.collect()
            traffic = running.live.traffic.models["one"]
            assert traffic.total == sum(traffic.outcomes.values())
            assert traffic.outcomes[Outcome.CANCELLED] > 0  # how many, the machine's load says
            await until(lambda: len(psutil.Process().net_connections("tcp")) <= sockets + 50)
        await until(lambda: connections.count == 0)


async def _visit(running: Gateway, seconds: float, stream: bool) -> None:
    async with raw(running) as client:
        await client.post("/v1/completions", LONG | {"stream": stream, "max_tokens": 15})
        try:
            async with asyncio.timeout(seconds):
                while await client.reader.read(1000):
                    pass
        except TimeoutError:
            pass
        client.writer.transport.abort()


async def test_leaving_right_after_the_last_byte_is_a_success(tmp_path: Path) -> None:
    """The answer was whole: it is nobody's cancelling."""
    async with whole(tmp_path, Spec("one")) as running:
        for _ in range(20):
            async with raw(running) as client:
                await client.post("/v1/completions", {"model": "one", "prompt": "x", "max_tokens": 1})
                length = re.search(r"content-length: (\d+)", await client.head())
                assert length
                await client.reader.readexactly(int(length[1]))
        await until(lambda: running.in_flight == 0)
        traffic = running.live.traffic.models["one"]
        assert {outcome.value: count for outcome, count in traffic.outcomes.items() if count} == {"successful": 20}
