"""Memory as SGLang releases it: strictly."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.runtime.engines.sim.stage import SGLANG, SLOW_SGLANG, stage, value_of

pytestmark = pytest.mark.anyio


async def test_release_and_resume_answer_null() -> None:
    """200 null; a second release is harmless; memory moves."""
    async with stage(SGLANG) as sim:
        first = await sim.post("/release_memory_occupation", {})
        second = await sim.post("/release_memory_occupation", {})
        asleep = sim.engine.memory.gib
        third = await sim.post("/resume_memory_occupation", {})
        assert [one.json() for one in (first, second, third)] == [None] * 3
        assert (asleep, sim.engine.memory.gib, sim.deaths) == (1, 8, [])


async def test_release_while_busy_is_deadly() -> None:
    """With a request running the process ends."""
    async with stage(SLOW_SGLANG) as sim:
        request = asyncio.create_task(sim.complete(max_tokens=1000))
        await sim.until_running()
        await sim.post("/release_memory_occupation", {})
        assert sim.deaths == [1]
        request.cancel()


async def test_release_during_a_health_check_is_deadly() -> None:
    """/health runs a generation, which counts as running."""
    async with stage(replace(SGLANG, health_seconds=2.0)) as sim:
        health = asyncio.create_task(sim.get("/health"))
        await sim.until_running()
        assert value_of(await sim.metrics(), "sglang:num_running_reqs") == 1
        await sim.post("/release_memory_occupation", {})
        assert sim.deaths == [1]
        health.cancel()


@pytest.mark.parametrize("before", [0, 1])
async def test_resume_of_what_is_not_released_is_deadly(before: int) -> None:
    """A second resume, or one without a release, ends the process."""
    async with stage(SGLANG) as sim:
        for _ in range(before):
            await sim.post("/release_memory_occupation", {})
            await sim.post("/resume_memory_occupation", {})
        assert sim.deaths == []
        await sim.post("/resume_memory_occupation", {})
        assert sim.deaths == [1]


async def test_parts_are_released_and_resumed_by_tag() -> None:
    """Each tag for itself; the wrong one kills."""
    async with stage(SGLANG) as sim:
        await sim.post("/release_memory_occupation", {"tags": ["kv_cache"]})
        await sim.post("/resume_memory_occupation", {"tags": ["kv_cache"]})
        assert sim.deaths == []
        await sim.post("/resume_memory_occupation", {"tags": ["weights"]})
        assert sim.deaths == [1]


@pytest.mark.parametrize("backup", [False, True])
async def test_weights_are_lost_without_a_backup(backup: bool) -> None:
    """Noise after resume until update_weights_from_disk; nothing lost with --enable-weights-cpu-backup."""
    async with stage(replace(SGLANG, enable_weights_cpu_backup=backup)) as sim:
        before = await sim.text()
        await sim.post("/release_memory_occupation", {})
        failed = await sim.post("/update_weights_from_disk", {"model_path": "org/tiny"})
        await sim.post("/resume_memory_occupation", {})
        resumed = await sim.text()
        updated = (await sim.post("/update_weights_from_disk", {"model_path": "org/tiny"})).json()
        after = await sim.text()
    assert failed.status_code == 400
    assert (resumed == before) is backup
    assert (updated["success"], after) == (True, before)


async def test_loads_and_ready_answer_while_released() -> None:
    """Both touch no model; /health gives up with 503."""
    async with stage(SGLANG) as sim:
        await sim.post("/release_memory_occupation", {})
        assert (await sim.get("/v1/loads")).json()["loads"][0]["num_running_reqs"] == 0
        assert (await sim.get("/ready")).status_code == 200
        assert (await sim.get("/model_info")).json()["model_path"] == "org/tiny"
        assert (await sim.get("/health")).status_code == 503
        assert (await sim.metrics())["sim:requests_while_asleep_total"] == 1


@pytest.mark.parametrize("strict", [False, True])
async def test_request_to_a_released_engine(strict: bool) -> None:
    """It answers, as the CPU build does, or dies of it when strict."""
    async with stage(replace(SGLANG, strict_sleep=strict)) as sim:
        await sim.post("/release_memory_occupation", {})
        answer = await sim.complete()
        assert (answer.status_code, sim.deaths) == ((500, [1]) if strict else (200, []))
        assert (await sim.metrics())["sim:requests_while_asleep_total"] == 1


async def test_paused_engine_is_unhealthy() -> None:
    """/health 503 at once, requests wait for /continue_generation."""
    async with stage(SGLANG) as sim:
        await sim.post("/pause_generation", {"mode": "abort"})
        assert (await sim.get("/health")).status_code == 503
        request = asyncio.create_task(sim.complete())
        while (await sim.metrics())["sim:requests_total"] < 1:
            assert not request.done()
        await sim.post("/continue_generation", {})
        assert (await request).status_code == 200
