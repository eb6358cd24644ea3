"""Adapters in both dialects."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime.engines.sim.stage import QUICK, SGLANG, Sim, stage

pytestmark = pytest.mark.anyio


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., str]:
    def make(name: str, rank: int = 8) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
        return str(folder)

    return make


async def load(sim: Sim, name: str, path: str, **more: object) -> tuple[int, str]:
    answer = await sim.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": path, **more})
    return answer.status_code, answer.text


async def test_loaded_adapter_is_one_more_model(adapter: Callable[..., str]) -> None:
    """Plain text answers, its own text, listed with its parent, 404 after unload."""
    async with stage(QUICK) as sim:
        base = await sim.text()
        path = adapter("a")
        loaded = await sim.post("/v1/load_lora_adapter", {"lora_name": "lora-a", "lora_path": path})
        assert loaded.text == "Success: LoRA adapter 'lora-a' added successfully."
        assert "content-type" not in loaded.headers
        await load(sim, "lora-b", adapter("b"))
        first, second = await sim.text(model="lora-a"), await sim.text(model="lora-b")
        assert len({base, first, second}) == 3
        assert first == await sim.text(model="lora-a")
        cards = (await sim.get("/v1/models")).json()["data"]
        assert [(card["id"], card["parent"], card["root"]) for card in cards][:2] == [
            ("tiny", None, "org/tiny"),
            ("lora-a", "tiny", path),
        ]
        assert "vllm:lora_requests_info" in (await sim.get("/metrics")).text
        gone = await sim.post("/v1/unload_lora_adapter", {"lora_name": "lora-a"})
        assert gone.text == "Success: LoRA adapter 'lora-a' removed successfully."
        assert (await sim.complete(model="lora-a")).status_code == 404


async def test_load_errors_are_the_real_ones(adapter: Callable[..., str]) -> None:
    """Status and words for each way a load can fail."""
    path = adapter("a")
    async with stage(QUICK) as sim:
        await load(sim, "a", path)
        again = await load(sim, "a", path)
        inplace = await load(sim, "a", path, load_inplace=True)
        missing = await load(sim, "bad", "/nowhere")
        ranked = await load(sim, "big", adapter("big", 64))
        named = await load(sim, "tiny", path)
        empty = await load(sim, "x", "")
        unknown = await sim.post("/v1/unload_lora_adapter", {"lora_name": "nope"})
        no_path = await sim.post("/v1/load_lora_adapter", {"lora_name": "x"})
    assert again[0] == 400
    assert "has already been loaded" in again[1]
    assert inplace[0] == 200
    assert missing[0] == 404
    assert "Loading lora bad failed: No adapter found for <path>" in missing[1]
    assert ranked[0] == 500
    assert "LoRA rank 64 is greater than max_lora_rank 16." in ranked[1]
    assert named[0] == 400
    assert "The lora adapter 'tiny' conflicts with a served base model." in named[1]
    assert "Both 'lora_name' and 'lora_path' must be provided." in empty[1]
    assert unknown.json()["error"]["message"] == "The lora adapter 'nope' cannot be found."
    assert no_path.json()["error"]["param"] == "body.lora_path"


async def test_routes_are_absent_when_not_enabled() -> None:
    """404 without the variable or the flag."""
    async with stage(replace(QUICK, enable_lora=False)) as sim:
        assert (await load(sim, "a", "x"))[0] == 404


async def test_sglang_adapter_needs_the_base_in_its_name(adapter: Callable[..., str]) -> None:
    """A bare adapter name silently gives the base; base:adapter and lora_path give the adapter."""
    path = adapter("a")
    async with stage(SGLANG) as sim:
        loaded = await sim.post("/load_lora_adapter", {"lora_name": "a", "lora_path": path})
        assert loaded.json() == {
            "rid": None,
            "http_worker_ipc": None,
            "success": True,
            "error_message": "",
            "loaded_adapters": {"a": path},
        }
        base = await sim.text()
        assert await sim.text(model="a") == base
        named = await sim.text(model="tiny:a")
        assert named != base
        assert await sim.text(lora_path="a") == named
        bogus = await sim.complete(model="tiny:bogus")
        assert bogus.status_code == 400
        assert bogus.json()["message"].startswith("Got LoRA adapter that has never been loaded: bogus")
        again = await sim.post("/load_lora_adapter", {"lora_name": "a", "lora_path": path})
        missing = await sim.post("/load_lora_adapter", {"lora_name": "b", "lora_path": "/nowhere"})
        unknown = await sim.post("/unload_lora_adapter", {"lora_name": "b"})
    assert [one.status_code for one in (again, missing, unknown)] == [400] * 3
    assert "already loaded" in again.json()["error_message"]
    assert "Repo id must be in the form" in missing.json()["error_message"]
    assert "does not exist" in unknown.json()["error_message"]
