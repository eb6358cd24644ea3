"""Sleep and wake by hand: what is answered, and what the engine sees of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from controller.fleet.state import State
from runtime.engines.sim.options import SimOptions
from state.database import StateError
from state.sleep_marks import SleepMarks
from tests.router.gateway import AT_ONCE, DIALECTS, SGLANG, VLLM, Spec, code_of, codes_of, text_of, until, whole
from tests.router.proxy.scripted import raw

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("options", DIALECTS, ids=["vllm", "sglang"])
async def test_a_busy_model_stays_awake(tmp_path: Path, options: SimOptions) -> None:
    """409 once the drain deadline has passed; the model serves on, and its engine was never told."""
    settings = {**AT_ONCE, "drain_timeout_seconds": 0.1}
    async with whole(tmp_path, Spec("one", options), sleep_manager=settings) as running:
        running.sims["one"].fault(silent_after_tokens={"tokens": 2, "times": 1})
        async with raw(running) as stream:
            await stream.post("/v1/completions", {"model": "one", "prompt": "x", "stream": True})
            await stream.head()
            refused = await running.sleep("one")
            assert code_of(refused) == (409, "still_busy")
            assert (refused.json()["success"], refused.json()["instances"]) == (False, {"one": "ready"})
            text_of(await running.complete("one"))
        assert running.sims["one"].count("sleep_calls") == 0


async def test_two_at_once(tmp_path: Path) -> None:
    """Two sleeps, then two wakes, at the same time: one engine call each, and all four are answered 200."""
    options = replace(SGLANG, sleep_seconds=0.05, wake_seconds=0.05)
    async with whole(tmp_path, Spec("one", options)) as running:
        assert codes_of(await asyncio.gather(running.sleep("one"), running.sleep("one"))) == {200}
        assert codes_of(await asyncio.gather(running.wake("one"), running.wake("one"))) == {200}
        sim = running.sims["one"]
        assert (sim.count("sleep_calls"), sim.count("wake_calls")) == (1, 1)
        assert codes_of([await running.wake("one")]) == {200}
        assert sim.count("wake_calls") == 1


async def test_too_early_to_be_woken_by_hand(tmp_path: Path) -> None:
    """409 with the remaining seconds; with force it is woken."""
    async with whole(tmp_path, Spec("one"), sleep_manager={"min_sleep_duration": 50}) as running:
        await running.put_to_sleep("one")
        refused = await running.wake("one")
        assert code_of(refused) == (409, "min_sleep_duration")
        assert 40 < refused.json()["retry_after_seconds"] <= 50
        assert refused.headers["retry-after"] == "50"
        assert running.sims["one"].count("wake_calls") == 0
        assert (await running.wake("one", force=True)).status_code == 200
        assert running.state("one") is State.READY


async def test_too_early_while_it_still_falls_asleep(tmp_path: Path) -> None:
    """The minimum counts from the moment the engine is told: a wake right then is too early as well."""
    options = replace(VLLM, sleep_seconds=0.2)
    async with whole(tmp_path, Spec("one", options), sleep_manager={"min_sleep_duration": 50}) as running:
        asking = asyncio.create_task(running.sleep("one"))
        await until(lambda: running.state("one") is State.FALLING_ASLEEP)
        assert code_of(await running.wake("one")) == (409, "min_sleep_duration")
        assert (await asking).status_code == 200


async def test_an_early_request_waits(tmp_path: Path) -> None:
    """A request that comes before the minimum is over waits for the rest of it and is answered."""
    async with whole(tmp_path, Spec("one"), sleep_manager={"min_sleep_duration": 0.4}) as running:
        await running.put_to_sleep("one")
        began = running.instance("one").asleep_since
        text_of(await running.complete("one"))
        assert time.time() - began >= 0.4
        assert running.sims["one"].count("wake_calls") == 1


async def test_a_request_too_early_for_its_deadline(tmp_path: Path) -> None:
    """503 at once, with the seconds to come back after, when waiting would take longer than it may."""
    settings = {"min_sleep_duration": 50, "wake_timeout_seconds": 10}
    async with whole(tmp_path, Spec("one"), sleep_manager=settings) as running:
        await running.put_to_sleep("one")
        began = time.monotonic()
        refused = await running.complete("one")
        assert time.monotonic() - began < 5
        assert code_of(refused) == (503, "min_sleep_duration")
        assert 45 <= int(refused.headers["retry-after"]) <= 50


async def test_requests_may_not_wake_it(tmp_path: Path) -> None:
    """503 model_asleep at once; woken by hand it serves. Another instance has its own setting."""
    kept = Spec("kept", yaml={"sleep_manager": {"wakeup_on_request": False}})
    async with whole(tmp_path, kept, Spec("other")) as running:
        await running.put_to_sleep("kept", "other")
        assert code_of(await running.complete("kept")) == (503, "model_asleep")
        text_of(await running.complete("other"))
        assert running.sims["kept"].count("wake_calls") == 0
        assert (await running.wake("kept")).status_code == 200
        text_of(await running.complete("kept"))


async def test_the_database_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mark no model sleeps: 503 state_unavailable, and it answers on. One that sleeps is woken."""

    async def full(*_: object) -> None:
        raise StateError("disk full")

    async with whole(tmp_path, Spec("one"), Spec("two", SGLANG)) as running:
        await running.put_to_sleep("two")
        monkeypatch.setattr(SleepMarks, "put", full)
        monkeypatch.setattr(SleepMarks, "clear", full)
        assert code_of(await running.sleep("one")) == (503, "state_unavailable")
        text_of(await running.complete("one"))
        text_of(await running.complete("two"))
        assert running.sims["one"].count("sleep_calls") == 0


async def test_all_of_a_model_or_one_of_them(tmp_path: Path) -> None:
    """A model's name means all its instances, an instance's name that one."""
    specs = [Spec(name, replace(VLLM, model="m")) for name in ("a", "b")]
    async with whole(tmp_path, *specs) as running:
        await running.put_to_sleep("a")
        assert (running.state("a"), running.state("b")) == (State.ASLEEP, State.READY)
        await running.put_to_sleep("m")
        assert (await running.wake("b")).json()["instances"] == {"b": "ready"}
        assert (await running.wake("m")).json()["instances"] == {"a": "ready", "b": "ready"}


async def test_one_that_was_not_looked_at_yet_is_found_out_about_first(tmp_path: Path) -> None:
    """A gateway that has just started, beside engines that are slow to say what they do."""
    async with whole(tmp_path, Spec("one"), sleep_manager=AT_ONCE) as running:
        running.instance("one").state = State.UNKNOWN
        assert (await running.sleep("one")).status_code == 200
        running.instance("one").state = State.UNKNOWN
        assert (await running.wake("one")).status_code == 200
        assert running.state("one") is State.READY
