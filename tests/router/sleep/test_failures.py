"""Engines that fail, are late, die and come back. A simulated SGLang dies of what would kill a real one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from controller.fleet import origin
from controller.fleet.state import State
from runtime.engines.sim.options import SimOptions
from runtime.engines.sim.server import serving
from tests.ports import free_port
from tests.router.gateway import (
    AT_ONCE,
    DIALECTS,
    VLLM,
    Gateway,
    Sim,
    Spec,
    code_of,
    codes_of,
    gateway,
    is_gibberish,
    text_of,
    until,
    whole,
    write_yaml,
)

pytestmark = pytest.mark.anyio
both = pytest.mark.parametrize("options", DIALECTS, ids=["vllm", "sglang"])
HASTY = {**AT_ONCE, "wake_timeout_seconds": 0.3}


async def become_patient(running: Gateway, folder: Path) -> None:
    """From now on a wake may take as long as it does on a busy machine."""
    write_yaml(folder, [sim.spec.entry(sim.url) for sim in running.sims.values()])
    assert (await running.client.post("/admin/reload")).status_code == 200


@both
async def test_a_wake_that_fails_at_first(tmp_path: Path, options: SimOptions) -> None:
    """It is tried again for those that wait, and they are answered, with sane text."""
    async with whole(tmp_path, Spec("one", options)) as running:
        await running.put_to_sleep("one")
        running.sims["one"].fault(fail_wake={"times": 2})
        answers = await asyncio.gather(*(running.complete("one") for _ in range(5)))
        assert not any(is_gibberish(text_of(answer)) for answer in answers)
        assert running.sims["one"].count("wake_calls") == 3


@both
async def test_a_wake_that_fails_always(tmp_path: Path, options: SimOptions) -> None:
    """After some retries all that wait get 503 wake_failed; once the engine can wake again it is woken."""
    async with whole(tmp_path, Spec("one", options)) as running:
        await running.put_to_sleep("one")
        running.sims["one"].fault(fail_wake={})
        answers = await asyncio.gather(*(running.complete("one") for _ in range(5)))
        assert {code_of(answer) for answer in answers} == {(503, "wake_failed")}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        assert code_of(await running.wake("one")) == (502, "engine_failed")
        running.sims["one"].engine.faults.clear()
        assert (await running.wake("one")).status_code == 200
        assert not is_gibberish(text_of(await running.complete("one")))


@both
async def test_a_slow_wake(tmp_path: Path, options: SimOptions) -> None:
    """A request that waited too long gets 503 wake_timeout; the next ones are answered, and nothing is done twice."""
    async with whole(tmp_path, Spec("one", options), sleep_manager=HASTY) as running:
        await running.put_to_sleep("one")
        running.sims["one"].fault(slow_wake={"seconds": 0.5, "times": 1})
        assert code_of(await running.complete("one")) == (503, "wake_timeout")
        await become_patient(running, tmp_path)
        await until(lambda: running.state("one") is not State.WAKING)
        assert not is_gibberish(text_of(await running.complete("one")))


@both
async def test_a_wake_that_is_done_but_never_answered(tmp_path: Path, options: SimOptions) -> None:
    """The engine is asked, or put to sleep again where it cannot be asked; the next request is answered."""
    async with whole(tmp_path, Spec("one", options), sleep_manager=HASTY) as running:
        await running.put_to_sleep("one")
        running.sims["one"].fault(wake_ok_but_timeout={"times": 1})
        assert code_of(await running.complete("one")) == (503, "wake_timeout")
        await become_patient(running, tmp_path)
        await until(lambda: running.state("one") is not State.WAKING)
        assert not is_gibberish(text_of(await running.complete("one")))


@both
@pytest.mark.parametrize("status", [500, 400])
async def test_a_sleep_that_fails(tmp_path: Path, options: SimOptions, status: int) -> None:
    """The engine is asked, or told once more: whichever it is, the next request is answered."""
    async with whole(tmp_path, Spec("one", options)) as running:
        running.sims["one"].fault(fail_sleep={"status": status, "times": 1})
        answer = await running.sleep("one")
        sleeps = running.sims["one"].engine.memory.absent != set()
        assert answer.status_code == (200 if sleeps else 502)
        assert running.state("one") is (State.ASLEEP if sleeps else State.READY)
        assert sleeps == (options.dialect == "sglang" and status == 500)
        assert not is_gibberish(text_of(await running.complete("one")))


async def test_no_way_to_sleep(tmp_path: Path) -> None:
    """A vLLM that was started without its sleep endpoints: 409, and it serves on."""
    spec = Spec("one", replace(VLLM, enable_sleep_mode=False), {"sleep_flags": True})
    async with whole(tmp_path, spec) as running:
        assert code_of(await running.sleep("one")) == (409, "not_possible")
        text_of(await running.complete("one"))


@both
@pytest.mark.parametrize("asleep", [False, True])
async def test_dies_and_comes_back(
    tmp_path: Path, options: SimOptions, asleep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests to a dead engine get 502 at once; back again it serves the next one, and nobody has to wake it."""
    options = replace(options, model="one", port=free_port())
    async with AsyncExitStack() as life, AsyncExitStack() as next_life:
        sim = Sim(Spec("one", options), await life.enter_async_context(serving(options)), [])
        async with gateway(tmp_path, {"one": sim}) as running:
            if asleep:
                await running.put_to_sleep("one")
            await life.aclose()
            for _ in range(2):
                assert code_of(await running.complete("one")) == (502, "engine_unreachable")
            await until(lambda: running.state("one") is State.FAILED)
            monkeypatch.setattr(origin, "listener", lambda port: "2:200")
            monkeypatch.setattr(origin, "is_running", lambda process: process == "2:200")  # no longer this process
            again = await next_life.enter_async_context(serving(options))
            running.instance("one").looked_at -= 10  # as if some time had passed
            assert codes_of(await asyncio.gather(*(running.complete("one") for _ in range(5)))) == {200}
            assert Sim(sim.spec, again, []).count("wake_calls") == 0
            await next_life.aclose()
