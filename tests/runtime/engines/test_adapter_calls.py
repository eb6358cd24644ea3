"""Adapters through the clients of both engines: the truth they list, and what each refusal means."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from runtime.engines.base import (
    AdapterSeen,
    AlreadyLoaded,
    Engine,
    EngineRefused,
    EngineTimeout,
    EngineUnreachable,
    NotLoaded,
    NotSupported,
)
from runtime.engines.control import open_client
from runtime.engines.kinds import KINDS
from runtime.engines.sim.options import SimOptions
from runtime.engines.spec import EngineSpec
from tests.runtime.engines.sim.stage import QUICK, SGLANG, Sim, stage

pytestmark = pytest.mark.anyio

each_dialect = pytest.mark.parametrize("options", [QUICK, SGLANG], ids=["vllm", "sglang"])


def make_adapter(folder: Path, **config: Any) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, **config}))
    return str(folder)


def spec_of(url: str, dialect: str, **more: Any) -> EngineSpec:
    parts = httpx2.URL(url)
    return EngineSpec(
        "one", dialect, "org/tiny", parts.host, parts.port or 80, url, more.pop("served_names", ("tiny",)), **more
    )


@contextlib.asynccontextmanager
async def connected(options: SimOptions, **more: Any) -> AsyncIterator[tuple[Engine, Sim]]:
    async with stage(options) as sim, open_client() as client:
        spec = spec_of(str(sim.client.base_url).rstrip("/"), options.dialect, **more)
        yield KINDS[spec.kind].connect(spec, client, 5.0), sim


@each_dialect
async def test_what_is_loaded_is_seen(options: SimOptions, tmp_path: Path) -> None:
    """By name, with its path and base; gone after the unload. The base itself is none."""
    path = make_adapter(tmp_path / "a")
    async with connected(options) as (engine, _):
        assert await engine.adapters() == {}
        answer = await engine.load_adapter("a", path)
        assert "Success" in answer or json.loads(answer)["success"]
        assert await engine.adapters() == {"a": AdapterSeen(path, "tiny")}
        await engine.unload_adapter("a")
        assert await engine.adapters() == {}


@each_dialect
async def test_the_model_of_an_adapter_answers_as_the_adapter(options: SimOptions, tmp_path: Path) -> None:
    """Under ``adapter_model`` the text differs from the base's, with SGLang too."""
    async with connected(options) as (engine, sim):
        await engine.load_adapter("a", make_adapter(tmp_path / "a"))
        assert await sim.text(model=engine.adapter_model("a")) != await sim.text()


@each_dialect
async def test_a_name_that_is_loaded_is_refused(options: SimOptions, tmp_path: Path) -> None:
    """With the engine's status and words."""
    path = make_adapter(tmp_path / "a")
    async with connected(options) as (engine, _):
        await engine.load_adapter("a", path)
        with pytest.raises(AlreadyLoaded) as refused:
            await engine.load_adapter("a", path)
    assert refused.value.status == 400
    assert "loaded" in refused.value.reason
    assert refused.value.text.startswith("{")


@each_dialect
async def test_a_name_that_is_not_loaded_is_refused(options: SimOptions) -> None:
    """404 of vLLM, 400 of SGLang."""
    async with connected(options) as (engine, _):
        with pytest.raises(NotLoaded) as refused:
            await engine.unload_adapter("a")
    assert refused.value.status == (404 if options.dialect == "vllm" else 400)


@each_dialect
async def test_a_path_without_an_adapter_is_a_refusal_of_its_own(options: SimOptions) -> None:
    """It must not be taken for one that is loaded or not."""
    async with connected(options) as (engine, _):
        with pytest.raises(EngineRefused) as refused:
            await engine.load_adapter("a", "/nowhere")
    assert type(refused.value) is EngineRefused
    assert refused.value.status == (404 if options.dialect == "vllm" else 400)


@each_dialect
async def test_the_base_is_known_by_name_and_path(options: SimOptions, tmp_path: Path) -> None:
    """SGLang's list has the served name alone. An adapter is no base."""
    async with connected(options) as (engine, _):
        await engine.load_adapter("a", make_adapter(tmp_path / "a"))
        assert await engine.bases() == ("tiny", "org/tiny")


async def test_a_name_alone_is_nothing_to_compare_with() -> None:
    """Of an SGLang that does not tell its path: it may be a nickname."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        found = request.url.path == "/v1/models"
        return httpx2.Response(200, json={"data": [{"id": "chat", "root": "chat"}]}) if found else httpx2.Response(404)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        assert await KINDS["sglang"].connect(spec_of("http://sglang", "sglang"), client, 1.0).bases() == ()


async def test_vllm_replaces_in_place(tmp_path: Path) -> None:
    """A changed path is seen at once."""
    first, second = make_adapter(tmp_path / "a"), make_adapter(tmp_path / "b")
    async with connected(QUICK) as (engine, _):
        assert engine.capabilities.replaces_adapters
        await engine.load_adapter("a", first)
        await engine.load_adapter("a", second, replace=True)
        assert (await engine.adapters())["a"].path == second


async def test_sglang_cannot_replace() -> None:
    """It would refuse; nothing is sent."""
    async with connected(SGLANG) as (engine, _):
        assert not engine.capabilities.replaces_adapters
        with pytest.raises(NotSupported):
            await engine.load_adapter("a", "/a", replace=True)


async def test_a_vllm_without_the_endpoints_says_what_is_missing(tmp_path: Path) -> None:
    """The flag and the variable are named."""
    async with connected(replace(QUICK, enable_lora=False)) as (engine, _):
        for call in (engine.load_adapter("a", "/a"), engine.unload_adapter("a")):
            with pytest.raises(NotSupported, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
                await call


@each_dialect
async def test_the_key_is_sent(options: SimOptions, tmp_path: Path) -> None:
    """With it all calls work; without it the engine's 401 comes through."""
    path = make_adapter(tmp_path / "a")
    keyed = replace(options, api_keys=("sekret",))
    async with connected(keyed, api_key="sekret") as (engine, _):
        await engine.load_adapter("a", path)
        assert "a" in await engine.adapters()
        await engine.unload_adapter("a")
    async with connected(keyed) as (engine, _):
        with pytest.raises(EngineRefused) as refused:
            await engine.load_adapter("a", path)
    assert (refused.value.status, refused.value.reason) == (401, "Unauthorized")


@each_dialect
async def test_a_load_that_fails_keeps_the_status(options: SimOptions, tmp_path: Path) -> None:
    """As does one that is late, or never answered."""
    path = make_adapter(tmp_path / "a")
    async with connected(options, call_seconds=0.1) as (engine, sim):
        await sim.fault(fail_load={"status": 507, "times": 1, "body": {"error": "no room"}})
        with pytest.raises(EngineRefused) as refused:
            await engine.load_adapter("a", path)
        assert (refused.value.status, refused.value.reason) == (507, "no room")
        await sim.fault(fail_unload={"status": 500, "times": 1})
        with pytest.raises(EngineRefused):
            await engine.unload_adapter("a")
        await sim.fault(slow_load={"seconds": 60, "times": 1})
        with pytest.raises(EngineTimeout):
            await engine.load_adapter("a", path)
    with pytest.raises(EngineUnreachable):
        async with open_client() as client:
            gone = KINDS[options.dialect].connect(spec_of("http://127.0.0.1:9", options.dialect), client, 1.0)
            await gone.load_adapter("a", path)


async def test_a_refusal_with_200_is_one() -> None:
    """Older SGLangs said success: false with a 200."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"success": False, "error_message": "adapter x is already loaded"})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        engine = KINDS["sglang"].connect(spec_of("http://sglang", "sglang"), client, 1.0)
        with pytest.raises(AlreadyLoaded) as refused:
            await engine.load_adapter("x", "/x")
    assert refused.value.status == 400


@pytest.mark.parametrize("body", ["{}", '{"data": 1}', '{"data": [1, {"id": "a"}]}', "[]", "no"])
async def test_a_list_that_is_none_hides_nothing(body: str) -> None:
    """Either there is a list without adapters, or it is an error."""
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, text=body))) as client:
        engine = KINDS["vllm"].connect(spec_of("http://vllm", "vllm"), client, 1.0)
        if body.startswith('{"data"'):
            assert await engine.adapters() == {}
        else:
            with pytest.raises(EngineRefused):
                await engine.adapters()


async def test_an_openai_server_has_no_adapters() -> None:
    """Nothing is sent."""
    async with open_client() as client:
        engine = KINDS["openai"].connect(spec_of("http://127.0.0.1:9", "openai"), client, 1.0)
        for call in (engine.adapters(), engine.load_adapter("a", "/a"), engine.unload_adapter("a")):
            with pytest.raises(NotSupported):
                await call
