"""An adapter is wanted, loaded, listed, used, and gone: on engines of both dialects, through the gateway."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from controller.adapters.describe import describe
from runtime.downloads.progress import Progress
from runtime.engines.sim.options import SimOptions
from tests.router.adapters.stage import BOTH, LORA, applied, artifact, loaded, phase, put, reasons, record, status
from tests.router.gateway import Spec, code_of, replica_of, text_of, until, whole

pytestmark = pytest.mark.anyio

DIALECT = pytest.mark.parametrize("options", BOTH, ids=lambda options: options.dialect)


@DIALECT
async def test_the_whole_cycle(options: SimOptions, tmp_path: Path) -> None:
    """It answers with a text of its own, is listed with its parent, and is unknown after it was deleted."""
    async with whole(tmp_path, Spec("base", options)) as gateway:
        path = artifact(tmp_path, "sql")
        await applied(gateway, "sql", path)
        assert loaded(gateway, "base") == {"sql": path}
        base, adapter = await gateway.complete("base"), await gateway.complete("sql")
        assert text_of(base) != text_of(adapter)
        cards = {card["id"]: card for card in (await gateway.client.get("/v1/models")).json()["data"]}
        assert (cards["sql"]["parent"], cards["sql"]["root"]) == ("base", "base")
        assert (await gateway.client.delete("/adapters/sql")).json()["status"]["phase"] == "Deleting"
        await until(lambda: "sql" not in gateway.live.adapters.records)
        assert loaded(gateway, "base") == {}
        assert code_of(await gateway.complete("sql")) == (404, "model_not_found")
        assert code_of(await gateway.client.get("/adapters/sql")) == (404, "adapter_not_found")
        assert os.path.isdir(path)  # noqa: PTH112, ASYNC240  # it is the user's own


@DIALECT
async def test_what_is_told_of_it(options: SimOptions, tmp_path: Path) -> None:
    """Phases, conditions and events as ModelAdapters have them."""
    async with whole(tmp_path, Spec("base", options)) as gateway:
        await applied(gateway, "sql", artifact(tmp_path, "sql"), replicas=1)
        found = await status(gateway, "sql")
        assert [one["phase"] for one in found["history"]] == ["Pending", "Scheduled", "Loading", "Bound", "Running"]
        assert [(one["type"], one["status"], one["reason"]) for one in found["conditions"]] == [
            ("Initialized", "Unknown", "ModelAdapterPending"),
            ("Scheduled", "True", "Scheduled"),
            ("Bound", "True", "Bound"),
            ("Ready", "True", "ModelAdapterAvailable"),
        ]
        assert (found["instances"], found["candidates"]) == (["base"], ["base"])
        assert (found["desiredReplicas"], found["readyReplicas"]) == (1, 1)
        assert await reasons(gateway, "sql") == ["Scheduled", "Loaded"]


async def test_what_describe_says_of_a_download(tmp_path: Path) -> None:
    """How far it is; what is not known is left open."""
    async with whole(tmp_path, Spec("base", LORA)) as gateway:
        await applied(gateway, "sql", artifact(tmp_path, "sql"))
        for progress, said in (
            (Progress(1_500_000, 3_000_000, 1, 2), "  Progress:  1.5 of 3.0 MB, 1 of 2 files"),
            (Progress(0, None, 0, None), "  Progress:  0.0 of ? MB, 0 of ? files"),
        ):
            record(gateway, "sql").watch(progress)
            answer = (await gateway.client.get("/adapters/sql")).json()
            lines = describe(answer, []).splitlines()
            assert said in lines
            assert "  podSelector:" not in lines  # nothing is below it


async def test_it_goes_to_as_many_instances_as_wanted(tmp_path: Path) -> None:
    """One of two, then both, then one again; requests reach only those that have it."""
    specs = [replica_of("base", name, LORA) for name in ("a", "b")]
    async with whole(tmp_path, *specs) as gateway:
        path = artifact(tmp_path, "sql")
        await applied(gateway, "sql", path, replicas=1)
        assert (loaded(gateway, "a"), loaded(gateway, "b")) == ({"sql": path}, {})
        for _ in range(4):
            text_of(await gateway.complete("sql"))
        assert gateway.sims["b"].count("requests") == 0
        await put(gateway, "sql", path)
        await until(lambda: loaded(gateway, "b") == {"sql": path})
        await until(lambda: len(record(gateway, "sql").route.instances) == 2)
        await put(gateway, "sql", path, replicas=1)
        await until(lambda: len(record(gateway, "sql").loaded) == 1)
        text_of(await gateway.complete("sql"))


@DIALECT
async def test_a_request_to_a_sleeping_base(options: SimOptions, tmp_path: Path) -> None:
    """It wakes the base, which has the adapter back before the request reaches it; it counts as traffic of the base."""
    async with whole(tmp_path, Spec("base", options)) as gateway:
        await applied(gateway, "sql", artifact(tmp_path, "sql"))
        before = text_of(await gateway.complete("sql"))
        await gateway.put_to_sleep("base")
        gateway.sims["base"].engine.adapters.drop("sql")  # what an engine that lost its weights may well do
        assert text_of(await gateway.complete("sql")) == before
        assert gateway.sims["base"].count("wake_calls") == 1
        assert gateway.live.traffic.models["base"].total == 2


async def test_one_that_was_never_loaded_is_loaded_when_its_base_wakes(tmp_path: Path) -> None:
    """The request that wakes it is served by the adapter."""
    async with whole(tmp_path, Spec("base", LORA)) as gateway:
        await gateway.put_to_sleep("base")
        await put(gateway, "sql", artifact(tmp_path, "sql"))
        await until(lambda: record(gateway, "sql").artifact is not None)
        await until(lambda: bool(record(gateway, "sql").route.instances))
        assert text_of(await gateway.complete("sql")) != text_of(await gateway.complete("base"))
        await phase(gateway, "sql", "Running")


@DIALECT
async def test_another_artifact_rolls_over(options: SimOptions, tmp_path: Path) -> None:
    """The new one is loaded from its own path on every instance; no request fails meanwhile."""
    specs = [replica_of("base", name, options) for name in ("a", "b")]
    async with whole(tmp_path, *specs) as gateway:
        old, new = artifact(tmp_path, "v1"), artifact(tmp_path, "v2")
        await applied(gateway, "sql", old)
        await until(lambda: len(record(gateway, "sql").loaded) == 2)
        await put(gateway, "sql", new)
        while loaded(gateway, "a") != {"sql": new} or loaded(gateway, "b") != {"sql": new}:
            text_of(await gateway.complete("sql"))
        await until(lambda: len(record(gateway, "sql").route.instances) == 2)
        text_of(await gateway.complete("sql"))


async def test_an_engine_that_lost_it_gets_it_back(tmp_path: Path) -> None:
    """The engine's own word is the truth."""
    async with whole(tmp_path, Spec("base", LORA)) as gateway:
        path = artifact(tmp_path, "sql")
        await applied(gateway, "sql", path)
        gateway.sims["base"].engine.adapters.drop("sql")
        await until(lambda: loaded(gateway, "base") == {"sql": path})
        await until(lambda: bool(record(gateway, "sql").route.instances))
        assert "AdapterLost" in await reasons(gateway, "sql")
        text_of(await gateway.complete("sql"))


@DIALECT
async def test_no_request_fails_while_its_only_instance_replaces_it(options: SimOptions, tmp_path: Path) -> None:
    """Each is answered by the old adapter or the new one, never by the base: those that come meanwhile wait."""
    async with whole(tmp_path, Spec("base", options)) as gateway:
        old, new = artifact(tmp_path, "v1"), artifact(tmp_path, "v2")
        base = text_of(await gateway.complete("base"))
        await applied(gateway, "sql", old)
        done = False

        async def keep_asking() -> set[str]:
            found = set()
            while not done:
                found.add(text_of(await gateway.complete("sql")))
            return found

        asking = [asyncio.create_task(keep_asking()) for _ in range(8)]
        gateway.sims["base"].fault(slow_load={"seconds": 0.2, "times": 1})
        await put(gateway, "sql", new)
        await until(lambda: loaded(gateway, "base") == {"sql": new})
        await until(lambda: bool(record(gateway, "sql").route.instances))
        done = True
        texts = set().union(*await asyncio.gather(*asking))
        assert base not in texts
        assert 1 <= len(texts) <= 2
