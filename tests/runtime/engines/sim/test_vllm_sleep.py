"""Sleep as vLLM does it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.patience import until
from tests.runtime.engines.sim.stage import QUICK, SLOW, readings, sse, stage, value_of

pytestmark = pytest.mark.anyio


async def test_sleep_and_wake_answer_like_the_real_one() -> None:
    """Level from the query, again is fine, /health stays 200, memory moves."""
    async with stage(QUICK) as sim:
        assert (await sim.post("/sleep?level=1", {"level": 2})).json() == {"status": "sleeping", "level": 1}
        assert (await sim.post("/sleep")).json() == {"status": "sleeping", "level": 1}
        assert (await sim.get("/is_sleeping")).json() == {"is_sleeping": True}
        assert (await sim.get("/health")).status_code == 200
        asleep = await sim.metrics()
        assert (await sim.post("/wake_up")).json() == {"status": "awake", "tags": None}
        assert (await sim.get("/is_sleeping")).json() == {"is_sleeping": False}
        awake = await sim.metrics()
        assert (await sim.get("/sleep")).status_code == 405
        wrong = await sim.post("/sleep?level=3")
    assert value_of(asleep, "vllm:engine_sleep_state", sleep_state="weights_offloaded") == 1
    assert value_of(asleep, "vllm:engine_sleep_state", sleep_state="awake") == 0
    assert (asleep["sim:memory_gib"], awake["sim:memory_gib"]) == (1, 8)
    assert (awake["sim:sleep_calls_total"], awake["sim:wake_calls_total"]) == (2, 1)
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "query.level")


async def test_level_zero_frees_nothing() -> None:
    """All three sleep states read 0, memory stays."""
    async with stage(QUICK) as sim:
        await sim.post("/sleep?level=0")
        metrics = await sim.metrics()
    assert value_of(metrics, "vllm:engine_sleep_state") == 0
    assert metrics["sim:memory_gib"] == 8


async def test_wake_in_parts() -> None:
    """Asleep until both tags are back; a bogus tag is no error."""
    async with stage(QUICK) as sim:
        await sim.post("/sleep")
        assert (await sim.post("/wake_up?tags=bogus")).json() == {"status": "sleeping", "tags": ["bogus"]}
        assert (await sim.post("/wake_up?tags=weights")).json() == {"status": "sleeping", "tags": ["weights"]}
        assert (await sim.get("/is_sleeping")).json() == {"is_sleeping": True}
        assert (await sim.post("/wake_up?tags=kv_cache")).json() == {"status": "awake", "tags": ["kv_cache"]}


async def test_request_to_a_sleeping_engine_hangs_until_woken() -> None:
    """It is in neither running nor waiting, is counted as such, and is answered after the wake."""
    async with stage(QUICK) as sim:
        await sim.post("/sleep")
        request = asyncio.create_task(sim.complete())
        while True:
            metrics = await sim.metrics()
            if metrics["sim:requests_while_asleep_total"] == 1:
                break
        assert value_of(metrics, "vllm:num_requests_running") == value_of(metrics, "vllm:num_requests_waiting") == 0
        assert not request.done()
        await sim.post("/wake_up")
        assert (await request).status_code == 200


async def test_level_two_loses_the_weights_until_they_are_loaded_again() -> None:
    """Noise after a plain wake; the true text when reload_weights came between the two tags."""
    async with stage(QUICK) as sim:
        before = await sim.text()
        await sim.post("/sleep?level=2")
        await sim.post("/wake_up")
        noise = await sim.text()
        await sim.post("/sleep?level=2")
        too_early = await sim.post("/collective_rpc", {"method": "reload_weights"})
        await sim.post("/wake_up?tags=weights")
        assert (await sim.post("/collective_rpc", {"method": "reload_weights"})).status_code == 200
        await sim.post("/wake_up?tags=kv_cache")
        after = await sim.text()
    assert too_early.status_code == 500
    assert "\u2588" in noise or "\u2593" in noise or "\u2591" in noise
    assert before == after != noise


async def test_sleep_ends_running_streams_as_if_successful() -> None:
    """finish_reason abort, the usage chunk, [DONE]; counted under abort."""
    async with stage(SLOW) as sim:
        wish: dict[str, Any] = {"max_tokens": 1000, "stream": True, "stream_options": {"include_usage": True}}
        request = asyncio.create_task(sim.complete(**wish))
        await sim.until_running()
        assert (await sim.post("/sleep")).status_code == 200
        events = sse((await request).text)
        metrics = await sim.metrics()
    assert events[-1][1] == "[DONE]"
    assert events[-2][1]["usage"]["completion_tokens"] < 1000
    assert events[-3][1]["choices"][0]["finish_reason"] == "abort"
    assert value_of(metrics, "vllm:request_success_total", finished_reason="abort") == 1


async def test_sleep_can_wait_for_what_runs() -> None:
    """mode=wait lets the reply come to its own end first."""
    async with stage(replace(SLOW, tokens_per_second=100)) as sim:
        request = asyncio.create_task(sim.complete(max_tokens=20))
        await sim.until_running()
        assert (await sim.post("/sleep?mode=wait")).status_code == 200
        assert request.done() or (await request).status_code == 200
        assert (await request).json()["choices"][0]["finish_reason"] == "length"


async def test_sleep_can_keep_what_runs() -> None:
    """mode=keep freezes a reply, still counted as running; it goes on after the wake."""
    async with stage(replace(SLOW, tokens_per_second=100)) as sim:
        request = asyncio.create_task(sim.complete(max_tokens=20))
        await sim.until_running()
        await sim.post("/sleep?mode=keep")
        metrics = await sim.metrics()
        assert value_of(metrics, "vllm:num_requests_running") == 1
        assert not request.done()
        await sim.post("/wake_up")
        assert (await request).json()["usage"]["completion_tokens"] == 20


async def test_paused_engine_says_it_sleeps() -> None:
    """/is_sleeping is true while merely paused, while the metric says awake; requests wait."""
    async with stage(QUICK) as sim:
        assert (await sim.post("/pause")).json() == {"status": "paused"}
        assert (await sim.get("/is_sleeping")).json() == {"is_sleeping": True}
        assert value_of(await sim.metrics(), "vllm:engine_sleep_state", sleep_state="awake") == 1
        request = asyncio.create_task(sim.complete())
        assert (await sim.post("/resume")).json() == {"status": "resumed"}
        assert (await request).status_code == 200
        assert (await sim.get("/is_paused")).json() == {"is_paused": False}


async def test_strict_engine_dies_of_a_request_while_asleep() -> None:
    """With --strict-sleep the process ends instead of letting the request hang."""
    async with stage(replace(QUICK, strict_sleep=True)) as sim:
        await sim.post("/sleep")
        assert (await sim.complete()).status_code == 500
        assert sim.deaths == [1]


async def test_sleep_routes_are_absent_outside_development_mode() -> None:
    """404, as for any unknown path."""
    async with stage(replace(QUICK, enable_sleep_mode=False)) as sim:
        answer = await sim.post("/sleep")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


async def test_sleep_takes_its_time() -> None:
    """The call answers when memory is released, not before; requests in between wait."""
    async with stage(replace(QUICK, sleep_seconds=0.1, wake_seconds=0.1)) as sim:
        falling = asyncio.create_task(sim.post("/sleep"))
        await until(lambda: sim.engine.asleep)
        assert sim.engine.memory.gib == 8
        request = asyncio.create_task(sim.complete())
        await falling
        assert sim.engine.memory.gib == 1
        waking = asyncio.create_task(sim.post("/wake_up"))
        assert readings((await sim.get("/metrics")).text)["sim:memory_gib"] == 1
        await waking
        assert (await request).status_code == 200
