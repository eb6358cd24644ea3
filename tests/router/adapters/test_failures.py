"""What goes wrong with adapters, on whole gateways: told with its reason, retried where that helps, moved where not."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from controller.adapters import backoff
from controller.fleet.state import State
from runtime.engines.sim.options import SimOptions
from tests.router.adapters.stage import (
    BOTH,
    LORA,
    applied,
    artifact,
    loaded,
    phase,
    put,
    reasons,
    record,
    status,
)
from tests.router.gateway import Spec, code_of, engines, gateway, replica_of, text_of, until, whole

pytestmark = pytest.mark.anyio

DIALECT = pytest.mark.parametrize("options", BOTH, ids=lambda options: options.dialect)


@DIALECT
async def test_a_load_that_fails_is_tried_again(options: SimOptions, tmp_path: Path) -> None:
    """An overloaded engine takes it later."""
    async with whole(tmp_path, Spec("base", options)) as gateway:
        gateway.sims["base"].fault(fail_load={"times": 2, "status": 503})
        await applied(gateway, "sql", artifact(tmp_path, "sql"))
        assert await reasons(gateway, "sql") == ["Scheduled", "LoadingError", "LoadingError", "Loaded"]


@DIALECT
async def test_after_the_tries_another_instance(options: SimOptions, tmp_path: Path) -> None:
    """The desired number of replicas is kept."""
    async with whole(tmp_path, *(replica_of("base", name, options) for name in "ab")) as gateway:
        gateway.sims["a"].fault(fail_load={"times": 6, "status": 503})
        await applied(gateway, "sql", artifact(tmp_path, "sql"), replicas=1)
        assert (list(loaded(gateway, "a")), list(loaded(gateway, "b"))) == ([], ["sql"])
        assert "MaxRetriesExceeded" in await reasons(gateway, "sql")
        text_of(await gateway.complete("sql"))


BAD = [
    ({"rank": 64}, "its rank 64 is above the engine's max_lora_rank 16"),
    ({"base": "org/other"}, "it was made for 'org/other', and the engine serves 'base'"),
    (None, "no LoRA adapter in"),
]


@pytest.mark.parametrize(("made", "reason"), BAD, ids=["rank", "base", "missing"])
async def test_a_bad_adapter_fails_at_once(made: dict[str, object] | None, reason: str, tmp_path: Path) -> None:
    """By its own description: the engine is not bothered, and a request is told why."""
    known = {"engine_args": ["--dialect", "vllm", "--max-lora-rank", "16"]}
    async with whole(tmp_path, Spec("base", LORA, known)) as gateway:
        path = str(tmp_path / "nothing") if made is None else artifact(tmp_path, "sql", **made)  # type: ignore[arg-type]
        await put(gateway, "sql", path)
        await phase(gateway, "sql", "Failed")
        (ready,) = [one for one in (await status(gateway, "sql"))["conditions"] if one["type"] == "Ready"]
        assert (ready["status"], ready["reason"]) == ("False", "ModelAdapterLoadingError")
        assert reason in ready["message"]
        refused = await gateway.complete("sql")
        assert code_of(refused) == (503, "adapter_not_loaded")
        assert reason in refused.json()["error"]["message"]
        assert loaded(gateway, "base") == {}


async def test_an_engine_that_refuses_the_key_fails_at_once(tmp_path: Path) -> None:
    """401 is not retried; with the right key in ``additionalConfig`` it loads, and the key is shown nowhere."""
    keyed = replace(LORA, api_keys=("sk-engine",))
    async with whole(tmp_path, Spec("base", keyed)) as gateway:
        path = artifact(tmp_path, "sql")
        await put(gateway, "sql", path)
        await phase(gateway, "sql", "Failed")
        assert "401" in str((await status(gateway, "sql"))["conditions"])
        answer = await put(gateway, "sql", path, additionalConfig={"api-key": "sk-engine"})
        await until(lambda: loaded(gateway, "base") == {"sql": path})
        assert "sk-engine" not in answer.text
        assert answer.json()["spec"]["additionalConfig"] == {"api-key": "(hidden)"}
        assert (await gateway.client.put("/adapters/sql", json=answer.json()["spec"])).status_code == 200
    assert not any(b"sk-engine" in content for content in database_of(tmp_path))
    kept = json.loads((tmp_path / "torpor.credentials.json").read_text())
    assert kept == {"adapter.sql": {"api-key": "sk-engine"}}


def database_of(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.glob("torpor.state.db*")]


async def test_missing_credentials_fail_at_once(tmp_path: Path) -> None:
    """The message says where they are looked for."""
    async with whole(tmp_path, Spec("base", LORA)) as gateway:
        await put(gateway, "sql", "s3://bucket/sql/", credentialsSecretRef={"name": "s3-keys"})
        await phase(gateway, "sql", "Failed")
        found = str(await status(gateway, "sql"))
        assert "no credentials called 's3-keys'" in found and "TORPOR_CREDENTIALS_S3_KEYS" in found


@DIALECT
async def test_another_gateway_goes_on(options: SimOptions, tmp_path: Path) -> None:
    """What was wanted, its history, and what is loaded already: nothing is loaded twice."""
    async with engines(Spec("base", options)) as sims:
        path = artifact(tmp_path, "sql")
        async with gateway(tmp_path, sims) as first:
            await applied(first, "sql", path)
            before = text_of(await first.complete("sql"))
            history = (await status(first, "sql"))["history"]
            await until(lambda: not record(first, "sql").untold_history)
        sims["base"].fault(fail_load={"status": 500})
        async with gateway(tmp_path, sims) as second:
            assert text_of(await second.complete("sql")) == before
            assert (await status(second, "sql"))["history"][: len(history)] == history


async def test_adapters_of_the_yaml(tmp_path: Path) -> None:
    """Declared there: loaded, not to be changed here, and gone when they are gone from the file."""
    declared = {"name": "sql", "baseModel": "base", "artifactURL": artifact(tmp_path, "sql")}
    async with engines(Spec("base", LORA)) as sims:
        async with gateway(tmp_path, sims, adapters=[declared]) as first:
            await phase(first, "sql", "Running")
            text_of(await first.complete("sql"))
            assert code_of(await put(first, "sql", "/other")) == (409, "declared_in_yaml")
            assert code_of(await first.client.delete("/adapters/sql")) == (409, "declared_in_yaml")
        async with gateway(tmp_path, sims) as second:
            await until(lambda: not second.live.adapters.records)
            assert loaded(second, "base") == {}


async def test_an_engine_that_fails_and_comes_back(tmp_path: Path) -> None:
    """Another takes over; then the one that came back is free for others."""
    async with whole(tmp_path, *(replica_of("base", name, LORA) for name in "ab")) as gateway:
        await applied(gateway, "sql", artifact(tmp_path, "sql"), replicas=1)
        first = record(gateway, "sql").loaded[0]
        gateway.instance(first).enter_failed("a test says so")
        await until(lambda: bool(record(gateway, "sql").loaded) and record(gateway, "sql").loaded != [first])
        text_of(await gateway.complete("sql"))
        await until(lambda: gateway.state(first) is State.READY)
        await until(lambda: loaded(gateway, first) == {} or first in record(gateway, "sql").chosen)


async def test_nobody_reaches_an_engines_own_adapter_paths(tmp_path: Path) -> None:
    """They are no paths of the gateway, whatever the spelling."""
    async with whole(tmp_path, Spec("base", LORA)) as gateway:
        body = {"model": "base", "lora_name": "x", "lora_path": "/x"}
        for path in ("/v1/load_lora_adapter", "/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/adapters"):
            assert code_of(await gateway.client.post(path, json=body)) == (404, "unknown_path")
        assert loaded(gateway, "base") == {}


MISTAKES = [
    ({"artifactURL": "ftp://x"}, "artifactURL"),
    ({"replicas": 0}, "replicas"),
    ({"surprise": 1}, "surprise"),
    ({"baseModel": "nobody"}, None),
]


@pytest.mark.parametrize(("more", "param"), MISTAKES)
async def test_a_spec_with_a_mistake(more: dict[str, object], param: str | None, tmp_path: Path) -> None:
    """400, with the key; nothing is stored."""
    async with whole(tmp_path, Spec("base", LORA)) as gateway:
        answer = await gateway.client.put("/adapters/sql", json={"baseModel": "base", "artifactURL": "/a"} | more)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert (await gateway.client.get("/adapters")).json() == {"object": "list", "data": []}


async def test_names(tmp_path: Path) -> None:
    """Not one that leads elsewhere, and none with a dot at its start."""
    async with whole(tmp_path, Spec("base", LORA)) as gateway:
        assert code_of(await put(gateway, "base", "/a")) == (409, "name_taken")
        assert code_of(await put(gateway, ".hidden", "/a")) == (400, "invalid_name")
        assert code_of(await gateway.client.delete("/adapters/none")) == (404, "adapter_not_found")


async def test_secrets_are_not_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a key nor what signs a URL."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "aiosqlite")  # as the program does: it would log all that is written
    async with whole(tmp_path, Spec("base", LORA)) as gateway:
        await put(gateway, "sql", "http://127.0.0.1:1/a.tgz?sig=hush", additionalConfig={"api-key": "sk-x"})
        await until(lambda: record(gateway, "sql").places["base"].tries != backoff.FRESH)
        answers = (await gateway.client.get("/adapters")).text + str(await reasons(gateway, "sql"))
        assert "hush" not in caplog.text + answers
        assert "sk-x" not in caplog.text + answers
