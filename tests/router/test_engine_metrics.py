"""All engines on one page: asleep, down, hung, many, and of both kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from controller.fleet.state import State
from router import engine_metrics
from router.engine_metrics import Seen, whole
from runtime.engines.kinds import KINDS
from tests.router.gateway import SGLANG, VLLM, Gateway, Spec, replica_of, until
from tests.router.gateway import whole as whole_gateway

pytestmark = pytest.mark.anyio


async def page(gateway: Gateway) -> Mapping[str, Metric]:
    answer = await gateway.client.get("/metrics/engines")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


def values(family: Metric | None, **labels: str) -> dict[tuple[str, str], float]:
    """The sum by model and instance of the samples that carry these labels; of a histogram, its counts."""
    found: dict[tuple[str, str], float] = {}
    for sample in family.samples if family else []:
        if labels.items() <= sample.labels.items() and not sample.name.endswith(("_sum", "_bucket")):
            key = sample.labels["model"], sample.labels["instance"]
            found[key] = found.get(key, 0.0) + sample.value
    return found


@pytest.fixture(autouse=True)
def no_old_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look is a new one."""
    monkeypatch.setattr(engine_metrics, "FRESH", 0.0)


async def test_both_kinds_and_replicas(tmp_path: Path) -> None:
    """Each instance's numbers under one name, with its model and its own name."""
    specs = [Spec("v"), Spec("s", SGLANG), replica_of("r", "r-1"), replica_of("r", "r-2")]
    async with whole_gateway(tmp_path, *specs) as gateway:
        await gateway.complete("v", max_tokens=4)
        await gateway.complete("s", max_tokens=3)
        found = await page(gateway)
    everyone = {("v", "v"), ("s", "s"), ("r", "r-1"), ("r", "r-2")}
    tokens = values(found["torpor:generation_tokens"])
    assert (tokens["v", "v"], tokens["s", "s"], tokens["r", "r-1"]) == (4, 3, 0)
    assert values(found["torpor:engine_up"]) == dict.fromkeys(everyone, 1.0)
    assert values(found["torpor:engine_state"], state="ready") == dict.fromkeys(everyone, 1.0)
    assert values(found["torpor:num_requests_running"]).keys() == everyone
    assert not [name for name in found if not name.startswith("torpor:")]


async def test_sleepers_are_told_as_such_and_sleep_on(tmp_path: Path) -> None:
    """Of both kinds, strict ones: nothing wakes, nothing dies, and what they counted is still there."""
    specs = [Spec("v", replace(VLLM, strict_sleep=True)), Spec("s", replace(SGLANG, strict_sleep=True))]
    async with whole_gateway(tmp_path, *specs) as gateway:
        for name in ("v", "s"):
            await gateway.complete(name, max_tokens=2)
        await gateway.put_to_sleep("v", "s")
        found = await page(gateway)
        assert values(found["torpor:engine_state"], state="asleep") == {("v", "v"): 1.0, ("s", "s"): 1.0}
        assert values(found["torpor:engine_up"]) == {("v", "v"): 1.0, ("s", "s"): 1.0}
        assert values(found["torpor:generation_tokens"]) == {("v", "v"): 2.0, ("s", "s"): 2.0}
        for name in ("v", "s"):
            assert gateway.state(name) is State.ASLEEP
            assert gateway.sims[name].count("requests_while_asleep") == 0
            assert gateway.sims[name].count("wake_calls") == 0


async def test_one_that_is_down_or_hangs_takes_nothing_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is down, after the deadline at the latest."""
    monkeypatch.setattr(engine_metrics, "DEADLINE", 0.3)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side has gone
        writer.close()

    listener = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with whole_gateway(tmp_path, Spec("v"), Spec("gone"), Spec("hung")) as gateway:
        for name, port in (("gone", 9), ("hung", listener.sockets[0].getsockname()[1])):
            control = gateway.instance(name).engine._control  # type: ignore[attr-defined]
            control._base = f"http://127.0.0.1:{port}"
        found = await page(gateway)
        assert values(found["torpor:engine_up"]) == {("v", "v"): 1.0, ("gone", "gone"): 0.0, ("hung", "hung"): 0.0}
        assert values(found["torpor:num_requests_running"]) == {("v", "v"): 0.0}
    listener.close()


async def test_two_scrapers_are_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is under way, and for a moment afterwards."""
    monkeypatch.setattr(engine_metrics, "FRESH", 60.0)
    async with whole_gateway(tmp_path, Spec("v")) as gateway:
        engine = gateway.instance("v").engine
        asked, gate, real = [0], asyncio.Event(), engine.metrics

        async def metrics() -> str:
            asked[0] += 1
            await gate.wait()
            return await real()

        monkeypatch.setattr(engine, "metrics", metrics)
        scrapers = [asyncio.create_task(page(gateway)) for _ in range(3)]
        await until(lambda: asked == [1])
        gate.set()
        await asyncio.gather(*scrapers)
        await page(gateway)
        assert asked == [1]


def test_a_page_that_cannot_be_read_is_one_engine_down() -> None:
    """The others are there. A kind without a page is up or down."""
    rules = KINDS["vllm"].metrics
    good = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 2\n"
    text = whole(
        [
            Seen("a", "a", State.READY, rules, True, good),
            Seen("b", "b", State.READY, rules, True, "vllm:num_requests_running{ x\n"),
            Seen("c", "c", State.FAILED, rules, False, None),
            Seen("d", "d", State.READY, {}, True, None),
        ]
    )
    found = {family.name: family for family in text_string_to_metric_families(text)}
    up = {("a", "a"): 1.0, ("b", "b"): 0.0, ("c", "c"): 0.0, ("d", "d"): 1.0}
    assert values(found["torpor:engine_up"]) == up
    assert values(found["torpor:num_requests_running"]) == {("a", "a"): 2.0}
    assert values(found["torpor:engine_state"], state="failed")[("c", "c")] == 1.0
