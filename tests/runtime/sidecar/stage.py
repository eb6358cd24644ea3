"""A sidecar beside a simulated engine, both on real sockets in the loop of the test.

async with beside(QUICK, tmp_path) as side:
    answer = await side.post("/v1/load_lora_adapter", {"lora_name": "a", "source": side.adapter("a")})
    assert answer.status_code == 200
    assert await side.loaded() == {"a": ...}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from runtime.engines.sim.options import SimOptions
from runtime.settings import Settings
from runtime.sidecar.app import create_app
from runtime.sidecar.options import Options, parse
from tests.router.gateway import served
from tests.runtime.engines.sim.stage import Sim, stage


def options_for(url: str, dialect: str, folder: Path, environ: Mapping[str, str] | None = None, **more: Any) -> Options:
    words = ["-E", dialect, "-B", url, "--allow-root", str(folder)]
    found = parse(words, environ or {})
    return replace(found, adapter_dir=folder / "adapters", model_dir=folder / "models", **more)


class Side:
    """``sim``: the engine. ``folder``: the one root that may be written to."""

    def __init__(self, client: httpx2.AsyncClient, sim: Sim, folder: Path) -> None:
        self.client = client
        self.sim = sim
        self.folder = folder

    async def post(self, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        return await self.client.post(path, json=body, **more)

    async def get(self, path: str, **more: Any) -> httpx2.Response:
        return await self.client.get(path, **more)

    def adapter(self, name: str, **config: Any) -> str:
        """A source: a folder with an adapter."""
        folder = self.folder / "sources" / name
        folder.mkdir(parents=True, exist_ok=True)
        content = {"r": 8, "base_model_name_or_path": "org/tiny", **config}
        (folder / "adapter_config.json").write_text(json.dumps(content))
        (folder / "adapter_model.safetensors").write_text(f"weights of {name}")
        return str(folder)

    def path(self, name: str) -> str:
        """Where something may be downloaded to."""
        return str(self.folder / "out" / name)

    async def loaded(self) -> dict[str, str]:
        """By the engine's own word."""
        cards = (await self.sim.get("/v1/models")).json()["data"]
        return {card["id"]: card["root"] for card in cards if card["parent"]}

    async def until_jobs(self, number: int) -> None:
        for _ in range(2000):
            if len((await self.get("/v1/jobs")).json()["data"]) == number:
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"there were never {number} jobs")

    async def until_phase(self, identity: str, phase: str) -> None:
        for _ in range(2000):
            if (await self.get(f"/v1/jobs/{identity}")).json()["phase"] == phase:
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"the job was never {phase}")

    async def job(self, identity: str) -> dict[str, Any]:
        """One job, once it has ended."""
        for _ in range(2000):
            found: dict[str, Any] = (await self.get(f"/v1/jobs/{identity}")).json()
            if found["status"] != "running":
                return found
            await asyncio.sleep(0.005)
        raise AssertionError("the job did not end in time")


@contextlib.asynccontextmanager
async def beside(
    sim: SimOptions,
    folder: Path,
    settings: Settings = Settings(),
    environ: Mapping[str, str] | None = None,
    **more: Any,
) -> AsyncIterator[Side]:
    async with stage(sim) as engine:
        url = str(engine.client.base_url).rstrip("/")
        options = options_for(url, sim.dialect, folder, environ, **more)
        async with running(options, settings) as client:
            yield Side(client, engine, folder)


@contextlib.asynccontextmanager
async def running(options: Options, settings: Settings = Settings()) -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        served(create_app(options, settings)) as url,
        httpx2.AsyncClient(base_url=url, timeout=15.0, trust_env=False) as client,
    ):
        yield client
