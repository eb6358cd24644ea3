"""A gateway that is killed while it sees to an adapter: the next one completes it. ``TORPOR_KILLS``: how often."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from runtime.downloads import marker
from tests.ports import free_port
from tests.router.adapters.stage import LORA, LORA_SGLANG
from tests.router.adapters.test_sidecars import publish
from tests.router.gateway import Sim, engines, replica_of, until, write_yaml
from tests.runtime.downloads.web_server import Web, web

pytestmark = pytest.mark.anyio

KILLS = int(os.environ.get("TORPOR_KILLS", "3"))
FETCHING, LOADING, DELETING = range(3)


class Killable:
    """A gateway process in ``folder``; the next one finds the state of the last."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._port = free_port()
        self.client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=10, trust_env=False)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        words = ["-m", "tests.router.adapters.hasty_gateway", str(self._file), str(self._port)]
        self._process = await asyncio.create_subprocess_exec(sys.executable, *words)
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(httpx2.HTTPError):
                    if (await self.client.get("/health")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def status(self, name: str) -> dict[str, Any] | None:
        answer = await self.client.get(f"/adapters/{name}")
        return answer.json()["status"] if answer.status_code == 200 else None

    async def until_ready(self, name: str, replicas: int) -> None:
        async with asyncio.timeout(20):
            while True:
                found = await self.status(name)
                if found is not None and (found["readyReplicas"], found["phase"]) == (replicas, "Running"):
                    return
                await asyncio.sleep(0.02)

    async def until_gone(self, name: str) -> None:
        async with asyncio.timeout(20):
            while True:
                if await self.status(name) is None:
                    return
                await asyncio.sleep(0.02)


async def test_a_gateway_that_is_killed(tmp_path: Path) -> None:
    """While it fetches, while engines of both dialects load, while it deletes: nothing half, and nothing is left."""
    specs = replica_of("base", "a", LORA), replica_of("base", "b", LORA_SGLANG)
    async with web() as site, engines(*specs) as sims:
        gateway = Killable(write_yaml(tmp_path, [sim.spec.entry(sim.url) for sim in sims.values()]))
        await gateway.start()
        try:
            for number in range(KILLS):
                await killed_once(gateway, sims, site, tmp_path / "torpor.adapters", number)
        finally:
            await gateway.kill()
            await gateway.client.aclose()


async def killed_once(gateway: Killable, sims: dict[str, Sim], site: Web, store: Path, number: int) -> None:
    name, moment = f"sql{number}", number % 3
    source = publish(site, name)
    page = site.pages[f"/{name}/adapter_config.json"]
    if moment == FETCHING:
        page.hold = asyncio.Event()
    elif moment == LOADING:
        for sim in sims.values():
            sim.fault(slow_load={"times": 1, "seconds": 0.5})
    spec = {"baseModel": "base", "artifactURL": source}
    assert (await gateway.client.put(f"/adapters/{name}", json=spec)).status_code == 200
    if moment == FETCHING:
        await asyncio.wait_for(page.held.wait(), 15)
    elif moment == LOADING:
        await until(lambda: bool(whole(store / name)))
    else:
        await gateway.until_ready(name, len(sims))
        assert (await gateway.client.delete(f"/adapters/{name}")).status_code == 200
    await gateway.kill()
    if page.hold is not None:
        assert all(name not in loaded(sim) for sim in sims.values())
        page.hold.set()
    await gateway.start()
    if moment == DELETING:
        await gateway.until_gone(name)
        assert all(name not in loaded(sim) for sim in sims.values())
        assert not (store / name).exists()
        return
    await gateway.until_ready(name, len(sims))
    (folder,) = whole(store / name)
    assert [loaded(sim)[name] for sim in sims.values()] == [str(folder)] * len(sims)
    answer = await gateway.client.post("/v1/completions", json={"model": name, "prompt": "x", "max_tokens": 1})
    assert answer.status_code == 200
    found = await gateway.client.get(f"/adapters/{name}")
    assert [one["phase"] for one in found.json()["status"]["history"]][-1] == "Running"


def loaded(sim: Sim) -> dict[str, str]:
    return {one.name: one.path for one in sim.engine.adapters.all()}


def whole(home: Path) -> list[Path]:
    """Folders that are whole, with every file as it came."""
    found = [(one, marker.read(one)) for one in home.iterdir()] if home.is_dir() else []
    return [one for one, read in found if read is not None and marker.damage(one, read) is None]
