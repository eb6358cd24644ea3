"""A source that holds something else by now is never taken for what the engine has loaded from the same path."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.adapters import read_config
from tests.runtime.downloads.web_server import Page, web
from tests.runtime.engines.sim.stage import QUICK
from tests.runtime.sidecar.stage import beside, options_for, running
from tests.runtime.sidecar.test_kthena import load_of

pytestmark = pytest.mark.anyio


async def test_a_changed_source_is_not_taken_for_what_is_loaded(tmp_path: Path) -> None:
    """The engine would say that it has it; until it is unloaded, that is a 409."""
    async with beside(QUICK, tmp_path) as side:
        body = load_of(side, "a")
        await side.post("/v1/load_lora_adapter", body)
        side.adapter("a", r=4)
        for _ in range(2):
            changed = await side.post("/v1/load_lora_adapter", body)
            assert (changed.status_code, "unload it first" in changed.json()["detail"]) == (409, True)
            assert read_config(Path(side.path("a")))["r"] == 8
        await side.post("/v1/unload_lora_adapter", {"lora_name": "a"})
        assert (await side.post("/v1/load_lora_adapter", body)).status_code == 200
        assert read_config(Path(side.path("a")))["r"] == 4


async def test_a_sidecar_that_was_started_anew_knows_it_by_the_files(tmp_path: Path) -> None:
    """What the one before has loaded is still there, and its files say what it is."""
    async with beside(QUICK, tmp_path) as side:
        body = load_of(side, "a")
        await side.post("/v1/load_lora_adapter", body)
        async with running(options_for(str(side.sim.client.base_url).rstrip("/"), "vllm", tmp_path)) as another:
            side.adapter("a", r=4)
            assert (await another.post("/v1/load_lora_adapter", json=body)).status_code == 409


async def test_a_source_without_a_revision_is_compared_by_its_content(tmp_path: Path) -> None:
    """The same is loaded already; another is a 409, however often it is asked for."""
    async with web() as site, beside(QUICK, tmp_path) as side:
        page = site.pages["/adapter_config.json"] = Page(b'{"r": 8}', etag=None)
        body = load_of(side, "a", source=site.url("/adapter_config.json"))
        for _ in range(2):
            assert (await side.post("/v1/load_lora_adapter", body)).status_code == 200
        page.body = b'{"r": 4}'
        for _ in range(2):
            assert (await side.post("/v1/load_lora_adapter", body)).status_code == 409
