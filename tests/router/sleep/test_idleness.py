"""Sleep by idleness: who is a candidate, and what is looked at once more before an engine is told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from controller.config.model import SleepSettings
from controller.fleet.state import State
from router.sleep.policy import Idleness, is_candidate
from tests.router.gateway import AT_ONCE, SGLANG, VLLM, Spec, engines, gateway, until, whole

pytestmark = pytest.mark.anyio
IDLE = Idleness(State.READY, can_sleep=True, in_flight=0, idle_seconds=11.0)
QUICKLY = {**AT_ONCE, "auto_sleep_enabled": True, "idle_threshold_seconds": 0.1, "check_interval_seconds": 0.02}


@pytest.mark.parametrize(
    ("idleness", "expected"),
    [
        (IDLE, True),
        (replace(IDLE, idle_seconds=10.0), False),
        (replace(IDLE, idle_seconds=9.0), False),
        (replace(IDLE, in_flight=1), False),
        (replace(IDLE, can_sleep=False), False),
        *((replace(IDLE, state=state), False) for state in State if state is not State.READY),
    ],
)
def test_candidates(idleness: Idleness, expected: bool) -> None:
    """Ready, able to sleep, nothing in flight, and idle for longer than the threshold."""
    assert is_candidate(idleness, SleepSettings(idle_threshold_seconds=10)) is expected


async def test_a_model_that_was_never_called(tmp_path: Path) -> None:
    """It is idle since it became ready, and sleeps; a request wakes it, and it sleeps again."""
    async with whole(tmp_path, Spec("one"), Spec("two", SGLANG), sleep_manager=QUICKLY) as running:
        for calls in (1, 2):
            await until(lambda: all(running.state(name) is State.ASLEEP for name in running.sims))
            assert [sim.count("sleep_calls") for sim in running.sims.values()] == [calls, calls]
            await asyncio.gather(*(running.complete(name) for name in running.sims))
        status = (await running.client.get("/sleep/status")).json()
        assert not any(model["manual_sleep"] for model in status["sleeping_models"].values())


async def test_an_instance_has_its_own_settings(tmp_path: Path) -> None:
    """One that may not sleep by itself, and one with another threshold, stay awake beside one that sleeps."""
    awake = Spec("awake", yaml={"sleep_manager": {"auto_sleep_enabled": False}})
    patient = Spec("patient", yaml={"sleep_manager": {"idle_threshold_seconds": 100}})
    async with whole(tmp_path, awake, patient, Spec("one"), sleep_manager=QUICKLY) as running:
        await until(lambda: running.state("one") is State.ASLEEP)
        await asyncio.sleep(0.1)
        assert {running.state("awake"), running.state("patient")} == {State.READY}


async def test_off_unless_asked_for(tmp_path: Path) -> None:
    """Without auto_sleep_enabled nothing sleeps by itself, and candidates are still told."""
    settings = {**QUICKLY, "auto_sleep_enabled": False}
    async with whole(tmp_path, Spec("one"), sleep_manager=settings) as running:
        await until(lambda: running.live.sleep.candidates() == ["one"])
        await asyncio.sleep(0.1)
        assert running.state("one") is State.READY


async def test_looked_at_once_more_as_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that a request took between the check and the act is left alone, though it could drain."""
    async with whole(tmp_path, Spec("one", replace(VLLM, ttft=0.1)), sleep_manager=QUICKLY) as running:
        transitions, instance = running.fleet.transitions["one"], running.instance("one")
        sleep = transitions.sleep
        asked = asyncio.Event()

        async def raced(*args: object, **more: object) -> None:
            if not asked.is_set():
                asked.set()
                instance.begin()
                asyncio.get_running_loop().call_later(0.05, instance.end)
                with pytest.raises(Exception, match="is not put to sleep"):
                    await sleep(*args, **more)  # type: ignore[arg-type]
                assert running.state("one") is State.READY
            await asyncio.Event().wait()

        monkeypatch.setattr(transitions, "sleep", raced)
        await asked.wait()
        await until(lambda: instance.in_flight == 0)
        assert running.sims["one"].count("sleep_calls") == 0


async def test_a_busy_engine_is_not_idle(tmp_path: Path) -> None:
    """Requests that did not come through here keep an engine awake, and it is tried again when they have ended."""
    settings = {**QUICKLY, "drain_timeout_seconds": 0.05}
    async with engines(Spec("one", SGLANG)) as sims, AsyncExitStack() as stack:
        sim = sims["one"]
        sim.fault(silent_after_tokens={"tokens": 2, "times": 1})
        body = {"model": "one", "prompt": "Once", "max_tokens": 10, "stream": True}
        async with (
            httpx2.AsyncClient(trust_env=False) as other,
            other.stream("POST", f"{sim.url}/v1/completions", json=body),
        ):
            running = await stack.enter_async_context(gateway(tmp_path, sims, sleep_manager=settings))
            for state in (State.DRAINING, State.READY, State.DRAINING):
                await until(lambda state=state: running.state("one") is state)  # type: ignore[misc]
            assert sim.count("sleep_calls") == 0
        await until(lambda: running.state("one") is State.ASLEEP)
