"""The YAML changes while the gateway runs: it applies at once, and no request is lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from controller.fleet.state import State
from router.reload import Reload
from tests.router.adapters.stage import LORA, applied, artifact
from tests.router.gateway import VLLM, Gateway, Spec, code_of, codes_of, engines, gateway, replica_of, until, write_yaml
from tests.router.proxy.scripted import Received, answer, scripted

pytestmark = pytest.mark.anyio

SLOW = replace(VLLM, tokens_per_second=200)
Reloaded = Callable[..., Awaitable[dict[str, Any]]]


@asynccontextmanager
async def stage(
    folder: Path, *specs: Spec, at_first: int | None = None, **sections: Any
) -> AsyncIterator[tuple[Gateway, Callable[..., None], Reloaded]]:
    """A gateway over the first engines, ``edit`` to write the YAML anew with those named, and ``reloaded``."""
    async with (
        engines(*specs) as sims,
        gateway(folder, dict(list(sims.items())[:at_first]), **sections) as running,
    ):

        def edit(*names: str, more: Mapping[str, Any] | None = None, **sections: Any) -> None:
            chosen = [sims[name] for name in names or sims]
            entries = [{**sim.spec.entry(sim.url), **(more or {}).get(sim.spec.name, {})} for sim in chosen]
            write_yaml(folder, entries, **sections)

        async def reloaded(*names: str, **changes: Any) -> dict[str, Any]:
            edit(*names, **changes)
            answer = await running.client.post("/admin/reload")
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

        yield running, edit, reloaded


async def test_settings_apply_in_place(tmp_path: Path) -> None:
    """Names, sleep, timeouts, limits and labels; what is known is kept; the plan says it all."""
    async with stage(tmp_path, Spec("one")) as (gateway, edit, _):
        assert (await gateway.complete("one")).status_code == 200
        instance, traffic = gateway.instance("one"), gateway.live.traffic.models["one"]
        changes: dict[str, Any] = {
            "more": {"one": {"aliases": ["uno"], "weight": 2.5, "labels": {"site": "x"}, "timeouts": {"idle": 7}}},
            "sleep_manager": {"min_sleep_duration": 0, "idle_threshold_seconds": 9},
            "router": {"max_body_mb": 0.0001},
        }
        edit(**changes)
        planned = (await gateway.client.get("/admin/reload")).json()
        assert code_of(await gateway.complete("uno")) == (404, "model_not_found")
        done = (await gateway.client.post("/admin/reload")).json()
        assert done["found"] == planned
        assert done["left"]["summary"] == []
        assert set(planned["summary"]) == {
            "router.max_body_mb: 64 -> 0.0001",
            "sleep_manager.idle_threshold_seconds: 300 -> 9",
            "one: in place (aliases: none -> uno; weight: 1 -> 2.5; labels.site: none -> x; timeouts.idle: 300 -> 7)",
        }
        assert (await gateway.complete("uno")).status_code == 200
        assert code_of(await gateway.complete("uno", "x" * 200)) == (413, "body_too_large")
        assert gateway.instance("one") is instance
        assert gateway.live.pools[instance].timeouts.idle == 7
        assert (instance.weight, instance.config.sleep.idle_threshold_seconds) == (2.5, 9)
        assert gateway.live.traffic.models["one"] is traffic
        assert traffic.total == 2
        status = (await gateway.client.get("/sleep/status")).json()
        assert status["idle_threshold_seconds"] == 9
        assert (await gateway.client.post("/admin/reload")).json()["found"]["summary"] == []


async def test_a_broken_yaml_changes_nothing(tmp_path: Path) -> None:
    """All its mistakes are told, whether asked what it would do or told to do it."""
    async with stage(tmp_path, Spec("one")) as (gateway, edit, _):
        edit(more={"one": {"aliases": ["uno"], "colour": "red", "weight": -1}})
        before = gateway.live.config
        for method in ("GET", "POST"):
            refused = await gateway.client.request(method, "/admin/reload")
            assert code_of(refused) == (422, "invalid_configuration")
            assert "colour" in refused.json()["error"]["message"]
            assert "weight" in refused.json()["error"]["message"]
        assert gateway.live.config is before
        assert code_of(await gateway.complete("uno")) == (404, "model_not_found")
        assert (await gateway.complete("one")).status_code == 200


async def test_keys_come_change_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the next request on, on connections that are open already too."""
    monkeypatch.setenv("FIRST", "one-key")
    monkeypatch.setenv("SECOND", "other-key")
    async with stage(tmp_path, Spec("one")) as (gateway, _, reloaded):
        await reloaded(router={"api_key_env": "FIRST"})
        assert code_of(await gateway.complete("one")) == (401, "missing_api_key")
        gateway.client.headers["authorization"] = "Bearer one-key"
        assert (await gateway.complete("one")).status_code == 200
        await reloaded(router={"api_key_env": "SECOND"})
        assert code_of(await gateway.complete("one")) == (401, "invalid_api_key")
        assert code_of(await gateway.client.get("/models")) == (401, "invalid_api_key")
        gateway.client.headers["authorization"] = "Bearer other-key"
        await reloaded()
        del gateway.client.headers["authorization"]
        assert (await gateway.complete("one")).status_code == 200


async def test_who_comes_serves_and_who_goes_finishes(tmp_path: Path) -> None:
    """A replica that is taken out gets nothing new, and its answers come whole. Then it is forgotten."""
    specs = (replica_of("m", "a", SLOW), replica_of("m", "b"), Spec("gone", SLOW), Spec("new"))
    async with stage(tmp_path, *specs, at_first=3) as (gateway, _, reloaded):
        pools = gateway.live.pools
        await reloaded("a", "gone")
        streams = [asyncio.create_task(gateway.complete(name, max_tokens=60)) for name in ("m", "gone")]
        await until(lambda: gateway.sims["a"].running + gateway.sims["gone"].running == 2)
        found = await reloaded("b", "new")
        assert [one["step"] for one in found["found"]["instances"]] == ["add", "add", "remove", "remove"]
        await until(lambda: gateway.state("b") is gateway.state("new") is State.READY)
        assert code_of(await gateway.complete("gone")) == (404, "model_not_found")
        answers = [await gateway.complete(name) for name in ("m", "new", "m")]
        assert [one.headers["x-torpor-instance"] for one in answers] == ["b", "new", "b"]
        whole = await asyncio.gather(*streams)
        assert [one.json()["usage"]["completion_tokens"] for one in whole] == [60, 60]
        await until(lambda: len(pools) == 2)
        assert set(gateway.live.traffic.models) == {"m", "new"}
        assert "gone" not in (await gateway.client.get("/metrics")).text


async def test_limits_change_under_those_who_wait(tmp_path: Path) -> None:
    """Raised: who waits has a place at once. Lowered: no place is given until there are few enough. Gone: all go."""
    may_end = asyncio.Semaphore(0)

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        await may_end.acquire()
        writer.write(answer(b"{}"))

    async with scripted(tmp_path, script, models={"one": {"max_in_flight": 1}}) as (gateway, _):
        one = gateway.sims["one"]

        async def limit(places: int | None) -> None:
            write_yaml(tmp_path, [one.spec.entry(one.url)], models={"one": {"max_in_flight": places}} if places else {})
            assert (await gateway.client.post("/admin/reload")).status_code == 200

        asked = [asyncio.create_task(gateway.complete("one")) for _ in range(6)]
        queue = gateway.live.queues["one"]
        await until(lambda: (queue.in_flight, len(queue.waiters)) == (1, 5))
        await limit(3)
        assert (queue.in_flight, len(queue.waiters)) == (3, 3)
        await limit(1)
        for _ in range(2):
            may_end.release()
        await until(lambda: queue.in_flight == 1)
        assert len(queue.waiters) == 3
        await limit(None)
        assert not queue.waiters
        assert gateway.live.queues == {}
        for _ in range(4):
            may_end.release()
        assert codes_of(await asyncio.gather(*asked)) == {200}
        assert (gateway.in_flight, queue.in_flight) == (0, 0)


async def test_who_waits_is_served_by_who_comes(tmp_path: Path) -> None:
    """A request that waits for a replica that is taken out goes to the one that takes its place, by any name."""
    specs = (replica_of("m", "a", aliases=["x"]), replica_of("m", "b"))
    async with stage(tmp_path, *specs, at_first=1) as (gateway, _, reloaded):
        await gateway.put_to_sleep("a")
        gateway.sims["a"].fault(slow_wake={"seconds": 30, "times": 1})
        asked = [asyncio.create_task(gateway.complete(name)) for name in ("m", "x")]
        await until(lambda: gateway.state("a") is State.WAKING)
        await reloaded("b")
        answers = await asyncio.gather(*asked)
        assert {one.headers["x-torpor-instance"] for one in answers} == {"b"}


async def test_who_waits_for_a_model_that_goes_is_still_served(tmp_path: Path) -> None:
    """It was accepted: the model wakes once more for it, and goes then."""
    async with stage(tmp_path, Spec("one"), Spec("two")) as (gateway, _, reloaded):
        await gateway.put_to_sleep("one")
        gateway.sims["one"].fault(slow_wake={"seconds": 0.3, "times": 1})
        asked = asyncio.create_task(gateway.complete("one"))
        await until(lambda: gateway.state("one") is State.WAKING)
        await reloaded("two")
        assert (await asked).status_code == 200
        await until(lambda: len(gateway.live.pools) == 1)


async def test_out_of_service_and_back(tmp_path: Path) -> None:
    """What is drained gets nothing; its replica does its work, or its requests wait; admitted, it serves as before."""
    specs = (replica_of("m", "a"), replica_of("m", "b"), Spec("alone"))
    async with stage(tmp_path, *specs) as (gateway, _, __):
        for name in ("a", "alone"):
            assert (await gateway.client.post(f"/admin/drain/{name}")).status_code == 200
            assert gateway.state(name) is State.STARTING
        answers = [await gateway.complete("m") for _ in range(4)]
        assert {one.headers["x-torpor-instance"] for one in answers} == {"b"}
        waits = asyncio.create_task(gateway.complete("alone"))
        await until(lambda: gateway.live.traffic.models["alone"].waiting == 1)
        for name in ("a", "alone"):
            assert (await gateway.client.post(f"/admin/admit/{name}")).status_code == 200
        assert (await waits).status_code == 200
        await until(lambda: gateway.state("a") is State.READY)
        assert code_of(await gateway.client.post("/admin/admit/nobody")) == (404, "instance_not_found")
        assert (await gateway.client.post("/admin/drain/nobody")).status_code == 200


async def test_what_stays_busy_stays_in_service(tmp_path: Path) -> None:
    """409, and its request, and those that came meanwhile, are answered."""
    refused = asyncio.Event()

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        await refused.wait()
        writer.write(answer(b"{}"))

    async with scripted(tmp_path, script) as (gateway, engine):
        asked = [asyncio.create_task(gateway.complete("one"))]
        await until(lambda: len(engine.received) == 1)
        draining = asyncio.create_task(gateway.client.post("/admin/drain/one", params={"seconds": 0.2}))
        await until(lambda: gateway.state("one") is State.STARTING)
        asked.append(asyncio.create_task(gateway.complete("one")))
        assert code_of(await draining) == (409, "still_busy")
        refused.set()
        assert codes_of(await asyncio.gather(*asked)) == {200}


async def test_nobody_looks_at_what_is_out_of_service_for_ever(tmp_path: Path) -> None:
    """A launcher that dies in between leaves no model behind that nobody serves."""
    async with stage(tmp_path, Spec("one")) as (gateway, _, __):
        gateway.live.apply(gateway.live.config, ["one"])
        gateway.fleet.hold("one", 0.01)
        assert (await gateway.complete("one")).status_code == 200


@pytest.mark.parametrize("header", [{"x-forwarded-for": "1.2.3.4"}, {"origin": "https://evil.example"}])
async def test_without_a_key_only_this_machine_may(tmp_path: Path, header: dict[str, str]) -> None:
    """Neither a web page nor whoever comes through a proxy."""
    async with stage(tmp_path, Spec("one")) as (gateway, _, __):
        for method, path in (("GET", "reload"), ("POST", "reload"), ("POST", "drain/one"), ("POST", "admit/one")):
            refused = await gateway.client.request(method, f"/admin/{path}", headers=header)
            assert code_of(refused) == (403, "local_only")


async def test_by_signal_the_log_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was applied, or what is wrong."""
    async with stage(tmp_path, Spec("one")) as (gateway, edit, _):
        reload = Reload(gateway.live)
        with caplog.at_level("INFO"):
            edit(more={"one": {"aliases": ["uno"]}})
            reload.apply_soon()
            await until(lambda: "one: in place (aliases: none -> uno)" in caplog.text)
            edit(more={"one": {"colour": "red"}})
            reload.apply_soon()
            await until(lambda: "colour" in caplog.text)
        assert (await gateway.complete("uno")).status_code == 200
        await reload.aclose()


async def test_load_goes_on_through_many_changes(tmp_path: Path) -> None:
    """Clients ask all the time while replicas, names, limits and policies come and go: every answer is whole."""
    specs = (replica_of("m", "a"), replica_of("m", "b"), replica_of("m", "c"), Spec("other"))
    settings = [{"max_in_flight": 2}, {"balancing": "prefix"}, {"max_in_flight": 8, "balancing": "random"}, {}]
    async with stage(tmp_path, *specs) as (gateway, _, reloaded):
        answers: list[httpx2.Response] = []
        over = False

        async def ask(number: int) -> None:
            while not over:
                name = "m" if number % 2 else "other"
                answers.append(await gateway.complete(name, stream=number % 3 == 0))

        clients = [asyncio.create_task(ask(number)) for number in range(12)]
        for turn in range(24):
            gone = "abc"[turn % 3]
            kept = [name for name in ("a", "b", "c", "other") if name != gone]
            await reloaded(*kept, models={"m": settings[turn % 4]}, more={"other": {"aliases": [f"x{turn}"]}})
            before = len(answers)
            await until(lambda before=before: len(answers) > before + 5)  # type: ignore[misc]
        over = True
        await asyncio.gather(*clients)
        assert codes_of(answers) == {200}
        assert all("[DONE]" in one.text or one.json()["usage"] for one in answers)
        await until(lambda: gateway.in_flight == 0 and len(gateway.live.pools) == 3)


async def test_adapters_follow_the_instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose instance is taken out is loaded on the one that comes, and is asked for all the time."""
    monkeypatch.setattr("controller.adapters.steps.STABLE_SECONDS", 0.0)
    specs = (replica_of("base", "a", LORA), replica_of("base", "b", LORA))
    async with stage(tmp_path, *specs, at_first=1) as (gateway, _, reloaded):
        await applied(gateway, "sql", artifact(tmp_path, "sql"))
        assert (await gateway.complete("sql")).headers["x-torpor-instance"] == "a"
        await reloaded("b")
        answers = [await gateway.complete("sql") for _ in range(3)]
        assert [(one.status_code, one.headers["x-torpor-instance"]) for one in answers] == [(200, "b")] * 3
