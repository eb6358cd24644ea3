"""The soak: what clients do is right where the gateway is, what is wrong is seen, and how it judges."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from uvicorn.config import HTTP_PROTOCOLS

from benchmarks.crowd import FAULTY, HABITS, MORTAL, NARROW, SLEEPERS, TOO_LARGE, Crowd
from benchmarks.endurance import Sample, at_rest, fleet, gauges, warnings, write_yaml
from controller.config.load import load
from tests.router.gateway import VLLM, Gateway, Spec, until, whole

KEEPING = replace(VLLM, enable_responses_store=True)
MODELS = (Spec(MORTAL, KEEPING), *(Spec(name) for name in (FAULTY, NARROW, *SLEEPERS)))
SAMPLE = Sample(at=0.0, resident=100_000_000, files=30, threads=4, in_flight=0, requests=0)


@pytest.fixture(autouse=True)
def as_it_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HTTP_PROTOCOLS, "httptools", "router.server.protocol:DirectProtocol")


def port_of(gateway: Gateway) -> int:
    return int(gateway.url.rstrip("/").rsplit(":", 1)[1])


@pytest.mark.anyio
async def test_every_habit_comes_out_as_expected(tmp_path: Path) -> None:
    """Some times each, by chance; nothing stays in flight."""
    async with whole(tmp_path, *MODELS, router={"max_body_mb": TOO_LARGE / 1e6 - 1}) as gateway:
        crowd = Crowd(port_of(gateway), seed=1, pace=0.0)
        chance = random.Random(1)
        for name, habit in HABITS.items():
            for _ in range(1 if name == "slow" else 8):
                crowd.outcomes[name, await habit.do(crowd, chance)] += 1
        await until(lambda: gateway.in_flight == 0)
        page = (await gateway.client.get("/metrics")).text
        await crowd.close()
    assert crowd.unexpected() == {}
    assert crowd.outcomes["responses", "200"] == 8
    assert crowd.outcomes["large", "413 as it must"]
    assert gauges(page) == 0


@pytest.mark.anyio
async def test_what_must_not_be_is_seen(tmp_path: Path) -> None:
    """An engine that fails where none may; a stream that is left is in the gauges."""
    async with whole(tmp_path, *MODELS) as gateway:
        crowd = Crowd(port_of(gateway), seed=1, pace=0.0)
        gateway.sims[MORTAL].fault(garbage=True)
        for name in ("whole", "stream"):
            crowd.outcomes[name, await HABITS[name].do(crowd, random.Random(1))] += 1
        gateway.sims[MORTAL].fault(garbage=False, silent_after_tokens={"tokens": 1})
        async with gateway.client.stream(
            "POST", "/v1/completions", json={"model": MORTAL, "prompt": "x", "stream": True}
        ) as stream:
            pieces = stream.aiter_bytes()
            await anext(pieces)
            assert gauges((await gateway.client.get("/metrics")).text) == 2  # of the model, and of the instance
        await crowd.close()
    assert crowd.unexpected() == {"stream: HTTP 502": 1, "whole: HTTP 502": 1}


def test_the_judgement() -> None:
    """Memory within five MB either way of what it was when warm; files and gauges as at the start."""
    changes: list[tuple[dict[str, Any], set[str]]] = [
        ({}, set()),
        ({"resident": 104_900_000, "files": 33}, set()),
        ({"resident": 105_100_000}, {"memory after warming up"}),
        ({"resident": 94_000_000}, {"memory after warming up"}),
        ({"in_flight": 1}, {"gauges"}),
        ({"files": 34}, {"open files"}),
    ]
    for change, failed in changes:
        checks = at_rest(SAMPLE, SAMPLE, replace(SAMPLE, **change), spare_files=3)
        assert {check.name for check in checks if not check.passed} == failed


def test_bad_lines_of_a_log_are_found() -> None:
    """What Python says when something was forgotten, and errors; not the usual warnings."""
    bad = [
        "Task exception was never retrieved",
        "<sys>:0: ResourceWarning: unclosed transport <TCPTransport>",
        "2026-11-21 03:54:43,746 ERROR router.proxy.pipeline: serving /v1/completions broke",
        "RuntimeWarning: coroutine 'x' was never awaited",
    ]
    good = ["2026-11-21 03:54:43,746 WARNING uvicorn.error: Invalid HTTP request received."]
    assert warnings("\n".join(good + bad + good)) == bad


def test_its_fleet_is_a_configuration(tmp_path: Path) -> None:
    """That the gateway takes: replicated models, one with a queue, two that sleep."""
    config = load(write_yaml(tmp_path, 8080, fleet()), {})
    assert [len(config.instances_of(model)) for model in config.models] == [2, 2, 1, 1, 1]
    assert [one.sleep.auto_sleep_enabled for one in config.instances] == [*[False] * 5, True, True]
