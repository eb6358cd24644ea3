"""Every curl line of kvcached's README, under both sets of paths, with kvcached's fields and the right values."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.router.gateway import VLLM, Gateway, Spec, replica_of, until, whole

pytestmark = pytest.mark.anyio

MODEL = "meta-llama/Llama-3.2-1B"
NAMES = (MODEL, "meta-llama%2FLlama-3.2-1B", "llama", "first")
STATS = (
    *("total_requests", "successful_requests", "failed_requests", "request_rate", "avg_response_time"),
    *("last_activity_time", "idle_time_seconds", "is_idle"),
)


def specs() -> list[Spec]:
    first = replica_of(MODEL, "first", aliases=["llama"])
    return [first, replica_of(MODEL, "second", aliases=["llama"]), Spec("idle")]


async def get(gateway: Gateway, path: str, status: int = 200) -> dict[str, Any]:
    answer = await gateway.client.get(path)
    assert answer.status_code == status, (path, answer.text)
    found: dict[str, Any] = answer.json()
    return found


async def test_traffic(tmp_path: Path) -> None:
    """Totals, rates and times of a model that was asked and one that was not."""
    async with whole(tmp_path, *specs()) as gateway:
        begun = time.time()
        for _ in range(3):
            assert (await gateway.complete("llama")).status_code == 200
        assert (await gateway.complete(MODEL, max_tokens=-1)).status_code == 400
        for prefix in ("/traffic/stats", "/model/traffic/stats"):
            every = await get(gateway, prefix)
            assert every["window_seconds"] == 60
            assert set(every["traffic_stats"]) == {MODEL, "idle"}
            assert every["traffic_stats"]["idle"]["total_requests"] == 0
            assert every["traffic_stats"]["idle"]["last_activity_time"] is None
            for name in NAMES:
                one = await get(gateway, f"{prefix}/{name}?window=120")
                assert one["window_seconds"] == 120
                stats = one["model_stats"]
                assert next(iter(stats)) in ("model_name", "total_requests")
                assert set(STATS) < set(stats)
                assert stats["model_name"] == name.replace("%2F", "/")
                assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (4, 3, 1)
                assert stats["request_rate"] == pytest.approx(4 / 120)
                assert 0 < stats["avg_response_time"] < 1
                assert begun <= stats["last_activity_time"] <= time.time()
                assert 0 <= stats["idle_time_seconds"] < 5
                assert stats["is_idle"] is False
                assert stats["status_classes"] == {"2xx": 3, "4xx": 1}
                assert "history" in stats
            history = (await get(gateway, f"{prefix}/llama?history=true"))["model_stats"]["history"]
            assert sum(bucket["requests"] for bucket in history) == 4


async def test_idle_and_active(tmp_path: Path) -> None:
    """Each model is in one of the lists, and moves with the threshold; one in flight is active."""
    async with whole(tmp_path, Spec("one", replace(VLLM, ttft=30.0)), Spec("two"), Spec("three")) as gateway:
        waiting = asyncio.create_task(gateway.complete("one"))
        await until(lambda: gateway.sims["one"].running == 1)
        await gateway.complete("two")
        await asyncio.sleep(0.05)
        for idle_path, active_path in (
            ("/models/idle", "/models/active"),
            ("/model/traffic/idle", "/model/traffic/active"),
        ):
            idle = await get(gateway, f"{idle_path}?threshold=0")
            assert (idle["idle_models"], idle["idle_threshold_seconds"]) == (["two", "three"], 0)
            assert idle["idle_models_count"] == 2
            details = idle["idle_model_details"]["two"]
            assert set(details) == {"idle_time_seconds", "total_requests", "last_activity_time"}
            assert details["total_requests"] == 1
            assert (await get(gateway, f"{idle_path}?threshold=300"))["idle_models"] == []
            active = await get(gateway, f"{active_path}?threshold=300&window=60")
            assert (active["active_models"], active["active_models_count"]) == (["one", "two"], 2)
            assert (active["idle_threshold_seconds"], active["window_seconds"]) == (300, 60)
            details = active["active_model_details"]["two"]
            assert {"request_rate", "total_requests", "avg_response_time", "last_activity_time"} < set(details)
            assert details["request_rate"] == pytest.approx(1 / 60)
            assert (await get(gateway, f"{active_path}?threshold=0"))["active_models"] == ["one"]
        waiting.cancel()


async def test_sleep_and_wake(tmp_path: Path) -> None:
    """By model, alias and instance; a model sleeps when none of its instances is awake."""
    sleeps = ("/model/sleep/{}", "/action/sleep/{}")
    wakes = ("/model/wake/{}", "/action/wakeup/{}")
    async with whole(tmp_path, *specs()) as gateway:
        for sleep, wake in zip(sleeps, wakes, strict=True):
            for name in NAMES[:3]:
                plain = name.replace("%2F", "/")
                answer = (await gateway.client.post(sleep.format(name))).json()
                assert answer["model_name"] == plain
                assert answer["success"] is True
                assert answer["message"] == f"Model {plain} sleep request successful"
                assert answer["instances"] == {"first": "asleep", "second": "asleep"}
                for path in ("/sleep/status", "/model/sleep/status"):
                    status = await get(gateway, path)
                    assert set(status["sleeping_models"]) == {MODEL}
                    sleeping = status["sleeping_models"][MODEL]
                    assert set(sleeping) == {"sleep_start_time", "sleep_duration", "manual_sleep"}
                    assert sleeping["manual_sleep"] is True
                    assert sleeping["sleep_start_time"] == pytest.approx(time.time(), abs=5)
                    assert {"sleep_candidates", "auto_sleep_enabled", "idle_threshold_seconds"} < set(status)
                    assert status["wakeup_on_request"] is True
                answer = (await gateway.client.post(wake.format(name))).json()
                assert answer["message"] == f"Model {plain} wake request successful"
                assert answer["instances"] == {"first": "ready", "second": "ready"}
            assert (await gateway.client.post(sleep.format("first"))).json()["instances"] == {"first": "asleep"}
            assert (await get(gateway, "/sleep/status"))["sleeping_models"] == {}
            assert (await get(gateway, "/models"))["models"][MODEL]["state"] == "ready"
            assert (await gateway.client.post(wake.format("first"))).status_code == 200
            for path in (sleep, wake):
                unknown = await gateway.client.post(path.format("nobody%2Fhere"))
                assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_sleep_candidates(tmp_path: Path) -> None:
    """Those idle for longer than their threshold, with kvcached's details."""
    settings = {"idle_threshold_seconds": 1, "auto_sleep_enabled": False, "min_sleep_duration": 0}
    async with whole(tmp_path, *specs(), sleep_manager=settings) as gateway:
        await asyncio.sleep(1.05)
        await gateway.complete("idle")
        for path in ("/sleep/candidates", "/model/sleep/candidates"):
            found = await get(gateway, path)
            assert found["sleep_candidates"] == [MODEL]
            assert (found["idle_threshold_seconds"], found["auto_sleep_enabled"]) == (1, False)
            details = found["candidate_details"][MODEL]
            assert set(details) == {"idle_time_seconds", "total_requests", "last_activity_time", "can_sleep"}
            assert details["can_sleep"] is True


async def test_health_models_and_server_info(tmp_path: Path) -> None:
    """Engines are asked at the same time; /models keeps kvcached's endpoint; nobody is woken."""
    slow = replace(VLLM, dialect="sglang", health_seconds=0.4, health_timeout=3.0)
    async with whole(tmp_path, *specs(), Spec("down"), Spec("s1", slow), Spec("s2", slow)) as gateway:
        gateway.sims["down"].fault(fail_health=True)
        await gateway.put_to_sleep("idle")
        assert await get(gateway, "/health") == {"status": "healthy"}
        urls = {name: sim.url for name, sim in gateway.sims.items()}
        begun = time.monotonic()
        every = await get(gateway, "/health/all")
        assert time.monotonic() - begun < 2.5
        assert every["model"] == "all"
        assert every["health"][MODEL] == {urls["first"]: True, urls["second"]: True}
        assert (every["health"]["down"], every["health"]["idle"]) == ({urls["down"]: False}, {urls["idle"]: True})
        for name in NAMES[:3]:
            one = await get(gateway, f"/health/{name}")
            assert one == {"model": name.replace("%2F", "/"), "health": every["health"][MODEL]}
        assert (await get(gateway, "/health/second"))["health"] == {urls["second"]: True}
        assert (await get(gateway, "/health/nobody", 404))["error"]["code"] == "model_not_found"
        assert gateway.state("idle") == "asleep"
        models = (await get(gateway, "/models"))["models"]
        assert models[MODEL]["endpoint"] == urls["first"]
        assert [one["name"] for one in models[MODEL]["instances"]] == ["first", "second"]
        assert models[MODEL]["aliases"] == ["llama"]
        assert models["idle"]["state"] == "asleep"
        info = await get(gateway, "/get_server_info")
        assert info["status"] == "running"
        assert info["models"] == list(models)
        assert len(info["instances"]) == len(urls)
        assert info["config_digest"] == gateway.config.digest
        assert 0 <= info["uptime_seconds"] < 60
        assert info["version"] != "unknown"
        cards = await get(gateway, "/v1/models")
        assert cards["object"] == "list"
        assert {card["id"]: (card["root"], card["state"]) for card in cards["data"]} == {
            MODEL: (MODEL, "ready"), "llama": (MODEL, "ready"), "idle": ("idle", "asleep"), "down": ("down", "ready"),
            "s1": ("s1", "ready"), "s2": ("s2", "ready"),
        }  # fmt: skip
        for name in NAMES[:3]:
            card = await get(gateway, f"/v1/models/{name}")
            assert (card["id"], card["object"], card["root"]) == (name.replace("%2F", "/"), "model", MODEL)
        assert (await get(gateway, "/v1/models/nobody", 404))["error"]["code"] == "model_not_found"


async def test_every_curl_line_answers(tmp_path: Path) -> None:
    """As they stand in the README that came with the seed (kept here, for the seed is not in the repository)."""
    lines = [
        ("GET", "/health"), ("GET", "/health/meta-llama%2FLlama-3.2-1B"), ("GET", "/health/all"), ("GET", "/models"),
        ("GET", "/get_server_info"), ("GET", "/traffic/stats"),
        ("GET", "/traffic/stats/meta-llama%2FLlama-3.2-1B?window=120"), ("GET", "/models/idle?threshold=300"),
        ("GET", "/models/active?threshold=300&window=60"), ("GET", "/sleep/status"),
        ("POST", "/action/sleep/meta-llama%2FLlama-3.2-1B"), ("POST", "/action/wakeup/meta-llama%2FLlama-3.2-1B"),
        ("GET", "/sleep/candidates"), ("GET", "/model/traffic/stats?window=60"),
        ("GET", "/model/traffic/stats/meta-llama%2FLlama-3.2-1B?window=60"),
        ("GET", "/model/traffic/idle?threshold=300"),
        ("GET", "/model/traffic/active?threshold=300&window=60"), ("GET", "/model/sleep/status"),
        ("POST", "/model/sleep/meta-llama%2FLlama-3.2-1B"), ("POST", "/model/wake/meta-llama%2FLlama-3.2-1B"),
        ("GET", "/model/sleep/candidates"),
    ]  # fmt: skip
    async with whole(tmp_path, *specs()) as gateway:
        said = await gateway.client.post("/v1/completions", json={"model": MODEL, "prompt": "Hello"})
        assert said.status_code == 200
        for method, path in lines:
            answer = await gateway.client.request(method, path)
            assert answer.status_code == 200, (path, answer.text)
