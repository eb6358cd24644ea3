"""Requests meet sleep: nothing is lost, nothing is cut off, and no engine is told while it is busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from controller.fleet.state import State
from runtime.engines.sim.options import SimOptions
from tests.router.gateway import (
    AT_ONCE,
    DIALECTS,
    SGLANG,
    VLLM,
    Gateway,
    Spec,
    code_of,
    codes_of,
    engines,
    gateway,
    is_gibberish,
    replica_of,
    text_of,
    until,
    whole,
)

pytestmark = pytest.mark.anyio
both = pytest.mark.parametrize("options", DIALECTS, ids=["vllm", "sglang"])
IDLE_AT_ONCE = {**AT_ONCE, "auto_sleep_enabled": True, "idle_threshold_seconds": 0, "check_interval_seconds": 0.01}


def paced(options: SimOptions) -> SimOptions:
    return replace(options, tokens_per_second=50.0)


async def stream(gateway: Gateway, model: str, tokens: int, **fields: object) -> AsyncIterator[str]:
    body = {"model": model, "prompt": "Once", "max_tokens": tokens, "stream": True, **fields}
    async with gateway.client.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line:
                yield line


@both
async def test_200_at_once_to_a_sleeping_model(tmp_path: Path, options: SimOptions) -> None:
    """One wake call, 200 answers, and all counts back to nothing."""
    async with whole(tmp_path, Spec("one", replace(options, wake_seconds=0.2))) as running:
        await running.put_to_sleep("one")
        answers = await asyncio.gather(*(running.complete("one") for _ in range(200)))
        assert codes_of(answers) == {200}
        sim = running.sims["one"]
        assert (sim.count("wake_calls"), sim.count("requests"), sim.count("requests_while_asleep")) == (1, 200, 0)
        await until(lambda: running.in_flight == 0)


@both
@pytest.mark.parametrize("by", ["hand", "idleness"])
async def test_a_stream_in_flight_ends_well(tmp_path: Path, options: SimOptions, by: str) -> None:
    """Sleep is asked for in mid-stream: the stream is complete, and the engine is told only afterwards."""
    settings = IDLE_AT_ONCE if by == "idleness" else AT_ONCE
    async with whole(tmp_path, Spec("one", paced(options)), sleep_manager=settings) as running:
        sim = running.sims["one"]
        lines: list[str] = []
        asking: asyncio.Task[httpx2.Response] | None = None
        told = -1
        async for line in stream(running, "one", 10, ignore_eos=True):
            lines.append(line)
            if told < 0:
                told = sim.count("sleep_calls")
                asking = asyncio.create_task(running.sleep("one")) if by == "hand" else None
            if sim.running:
                assert sim.count("sleep_calls") == told
        assert lines[-1] == "data: [DONE]"
        assert len(lines) >= 11
        if asking is not None:
            assert (await asking).status_code == 200
        await until(lambda: running.state("one") is State.ASLEEP)
        assert sim.count("aborted_requests") == 0


async def test_a_request_during_the_drain_calls_it_off(tmp_path: Path) -> None:
    """While a stream is waited for a request comes: it is served at once, and the sleep is refused with 409."""
    async with whole(tmp_path, Spec("one", paced(VLLM))) as running:
        streaming = stream(running, "one", 15)
        await anext(streaming)
        asking = asyncio.create_task(running.sleep("one"))
        await until(lambda: running.state("one") is State.DRAINING)
        assert (await running.complete("one", max_tokens=1)).status_code == 200
        assert code_of(await asking) == (409, "called_off")
        assert [line async for line in streaming][-1] == "data: [DONE]"
        assert (running.state("one"), running.sims["one"].count("sleep_calls")) == (State.READY, 0)


@both
async def test_a_request_while_the_engine_is_told(tmp_path: Path, options: SimOptions) -> None:
    """It is too late to call it off: the request waits for the sleep, wakes the model, and is answered."""
    async with whole(tmp_path, Spec("one", replace(options, sleep_seconds=0.2))) as running:
        asking = asyncio.create_task(running.sleep("one"))
        await until(lambda: running.state("one") is State.FALLING_ASLEEP)
        assert not is_gibberish(text_of(await running.complete("one")))
        assert (await asking).status_code == 200
        sim = running.sims["one"]
        assert (sim.count("sleep_calls"), sim.count("wake_calls")) == (1, 1)
        assert sim.count("requests_while_asleep") == 0


@both
async def test_a_request_that_did_not_come_through_here(tmp_path: Path, options: SimOptions) -> None:
    """A request sent to the engine directly delays the sleep: its own count is what counts."""
    async with whole(tmp_path, Spec("one", paced(options))) as running:
        sim = running.sims["one"]
        body = {"model": "one", "prompt": "Once", "max_tokens": 10}
        direct = asyncio.create_task(running.client.post(f"{sim.url}/v1/completions", json=body))
        await until(lambda: sim.running == 1)
        asking = asyncio.create_task(running.sleep("one"))
        await until(lambda: running.state("one") is State.DRAINING)
        assert sim.running == 1
        assert (await asking).status_code == 200
        assert (await direct).json()["usage"]["completion_tokens"] == 10


async def test_a_client_that_left_an_sglang(tmp_path: Path) -> None:
    """SGLang runs on for a while for a client that has left: it is not released, and killed, before it has ended."""
    options = replace(SGLANG, tokens_per_second=5.0, abort_lag=0.3)
    async with whole(tmp_path, Spec("one", options)) as running:
        sim = running.sims["one"]
        leaving = asyncio.create_task(running.complete("one", max_tokens=100))
        await until(lambda: sim.running == 1)
        leaving.cancel()
        await until(lambda: running.in_flight == 0)
        assert sim.running == 1
        assert (await running.sleep("one")).status_code == 200
        assert (sim.running, sim.deaths) == (0, [])


@both
async def test_clients_that_leave_while_they_wait(tmp_path: Path, options: SimOptions) -> None:
    """The wake goes on without them, nothing reaches the engine, and all counts are back to nothing."""
    async with whole(tmp_path, Spec("one", replace(options, wake_seconds=0.2))) as running:
        await running.put_to_sleep("one")
        waiting = [asyncio.create_task(running.complete("one")) for _ in range(20)]
        await until(lambda: running.live.traffic.models["one"].waiting == 20)
        for task in waiting:
            task.cancel()
        await until(lambda: running.in_flight == 0)
        await until(lambda: running.state("one") is State.READY)
        sim = running.sims["one"]
        assert (sim.count("wake_calls"), sim.count("requests")) == (1, 0)


async def test_replicas(tmp_path: Path) -> None:
    """One replica asleep, one awake: the one awake serves, and nobody is woken. Both asleep: one is woken."""
    async with whole(tmp_path, replica_of("m", "a"), replica_of("m", "b", SGLANG)) as running:
        a, b = running.sims["a"], running.sims["b"]
        await running.put_to_sleep("a")
        answers = await asyncio.gather(*(running.complete("m") for _ in range(5)))
        assert codes_of(answers) == {200}
        assert (a.count("wake_calls"), a.count("requests"), b.count("requests")) == (0, 0, 5)
        assert (await running.client.get("/sleep/status")).json()["sleeping_models"] == {}
        await running.put_to_sleep("b")
        assert "m" in (await running.client.get("/sleep/status")).json()["sleeping_models"]
        answers = await asyncio.gather(*(running.complete("m") for _ in range(5)))
        assert codes_of(answers) == {200}
        assert a.count("wake_calls") + b.count("wake_calls") == 1


@pytest.mark.parametrize(
    "options",
    [VLLM, SGLANG, replace(SGLANG, enable_weights_cpu_backup=True)],
    ids=["vllm", "sglang", "sglang with backup"],
)
async def test_the_deepest_sleep(tmp_path: Path, options: SimOptions) -> None:
    """Weights that were dropped are loaded again before the first request: the text is what it was."""
    async with whole(tmp_path, Spec("one", options), sleep_manager={**AT_ONCE, "level": 2}) as running:
        before = text_of(await running.complete("one"))
        for _ in range(2):
            await running.put_to_sleep("one")
            assert running.sims["one"].engine.memory.intact == options.enable_weights_cpu_backup
            assert text_of(await running.complete("one")) == before


async def test_put_to_sleep_by_somebody_else(tmp_path: Path) -> None:
    """Requests that run into a vLLM that others put to sleep are found stranded, and it is woken for them."""
    async with whole(tmp_path, Spec("one")) as running:
        sim = running.sims["one"]
        await running.client.post(f"{sim.url}/sleep", params={"level": "2"})
        stranded = asyncio.create_task(running.complete("one"))
        await until(lambda: running.instance("one").in_flight == 1)
        await running.fleet.transitions["one"].observe()
        assert not is_gibberish(text_of(await stranded))
        await until(lambda: running.state("one") is State.READY)
        await running.put_to_sleep("one")
        await running.client.post(f"{sim.url}/wake_up")
        await running.fleet.transitions["one"].observe()
        assert running.state("one") is State.READY


@both
async def test_a_gateway_stopped_and_started(tmp_path: Path, options: SimOptions) -> None:
    """A gateway that ends while a model sleeps leaves it asleep; the next one knows, and wakes it on request."""
    async with engines(Spec("one", options)) as sims:
        async with gateway(tmp_path, sims) as running:
            await running.put_to_sleep("one")
        async with gateway(tmp_path, sims) as running:
            assert running.state("one") is State.ASLEEP
            assert sims["one"].count("sleep_calls") == 1
            assert not is_gibberish(text_of(await running.complete("one")))
            assert sims["one"].count("wake_calls") == 1
        async with gateway(tmp_path, sims) as running:
            assert running.state("one") is State.READY
