"""Adapters that a sidecar beside the engine fetches and loads, in its own process and in the loop of the test."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import signal
import sys
import zipfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from controller.adapters import backoff
from controller.adapters.credentials import Credentials
from runtime.downloads import marker
from runtime.engines.sim.options import SimOptions
from tests.ports import free_port
from tests.router.adapters.stage import BOTH, LORA, applied, artifact, loaded, phase, put, reasons, record, status
from tests.router.gateway import Gateway, Sim, Spec, engines, gateway, text_of, until
from tests.runtime.downloads.web_server import Page, Web, web
from tests.runtime.sidecar.stage import options_for, running

pytestmark = pytest.mark.anyio

DIALECT = pytest.mark.parametrize("options", BOTH, ids=lambda options: options.dialect)
KILLS = int(os.environ.get("TORPOR_KILLS", "2"))
"""Of a sidecar, at different moments of a load."""


Clients = list[httpx2.AsyncClient]


@dataclass(frozen=True)
class Beside(Spec):
    """One that the launcher might have started, with a sidecar."""

    port: int = 0

    def entry(self, url: str) -> dict[str, Any]:
        entry, address = super().entry(url), urlsplit(url)
        del entry["url"]
        there = {"host": address.hostname, "port": address.port}
        return {**entry, **there, "sidecar": True, "sidecar_port": self.port}


@contextlib.asynccontextmanager
async def delegating(folder: Path, *names: str, options: SimOptions = LORA) -> AsyncIterator[tuple[Gateway, Clients]]:
    """A gateway over replicas with a sidecar each, in this process; and clients of those."""
    async with contextlib.AsyncExitStack() as stack:
        specs = [Spec(name, replace(options, model="base")) for name in names]
        sims = await stack.enter_async_context(engines(*specs))
        clients = []
        for name, sim in sims.items():
            client = await stack.enter_async_context(running(options_for(sim.url, options.dialect, folder)))
            clients.append(client)
            sim.spec = Beside(name, sim.spec.options, port=urlsplit(str(client.base_url)).port or 0)
        yield await stack.enter_async_context(gateway(folder, sims)), clients


def publish(site: Web, name: str, **config: Any) -> str:
    """An adapter on the web, where a folder is an archive or a single file."""
    content = json.dumps({"r": 8, "base_model_name_or_path": "base", **config}).encode()
    site.pages[f"/{name}/adapter_config.json"] = Page(content, etag=f'"{hash(content)}"')
    return site.url(f"/{name}/adapter_config.json")


def zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


async def jobs(clients: Clients) -> list[dict[str, Any]]:
    """Of all sidecars."""
    return [job for client in clients for job in (await client.get("/v1/jobs")).json()["data"]]


@DIALECT
async def test_the_sidecar_fetches_loads_and_unloads(
    options: SimOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All of the cycle, and credentials are in none of its lists or logs."""
    caplog.set_level(logging.DEBUG)
    Credentials(tmp_path / "torpor.credentials.json", {}).keep("hub", {"hf_token": "hf_secret"})
    async with web() as site, delegating(tmp_path, "a", options=options) as (gateway, sidecar):
        source = publish(site, "sql")
        await applied(gateway, "sql", source, credentialsSecretRef={"name": "hub"})
        (path,) = loaded(gateway, "a").values()
        assert Path(path).parent == tmp_path / "torpor.adapters" / "sql"
        done = await jobs(sidecar)
        assert [(one["kind"], one["status"]) for one in done] == [
            ("download_model", "completed"),
            ("load_lora_adapter", "completed"),
        ]
        assert text_of(await gateway.complete("base")) != text_of(await gateway.complete("sql"))
        await gateway.client.delete("/adapters/sql")
        await until(lambda: "sql" not in gateway.live.adapters.records)
        assert loaded(gateway, "a") == {} and not await asyncio.to_thread(Path(path).exists)
        assert [one["kind"] for one in await jobs(sidecar)][2:] == ["unload_lora_adapter"]
        assert "hf_secret" not in str(await jobs(sidecar)) + caplog.text


@DIALECT
async def test_what_changed_is_replaced_and_what_slept_is_loaded_again(options: SimOptions, tmp_path: Path) -> None:
    """From another path; and after a wake, when the weights may be gone."""
    async with web() as site, delegating(tmp_path, "a", options=options) as (gateway, _):
        await applied(gateway, "sql", publish(site, "one"))
        before = dict(loaded(gateway, "a"))
        await put(gateway, "sql", publish(site, "two", r=4))
        await until(lambda: loaded(gateway, "a") not in ({}, before) and bool(record(gateway, "sql").loaded))
        after = dict(loaded(gateway, "a"))
        await gateway.put_to_sleep("a")
        text_of(await gateway.complete("sql"))
        assert loaded(gateway, "a") == after


@DIALECT
async def test_a_source_that_holds_something_else_is_another_artefact(options: SimOptions, tmp_path: Path) -> None:
    """Under the same URL: the adapter is applied again, and loaded from another path. The old files go."""
    async with web() as site, delegating(tmp_path, "a", options=options) as (gateway, _):
        source = publish(site, "sql")
        await applied(gateway, "sql", source)
        (before,) = loaded(gateway, "a").values()
        await put(gateway, "sql", source)
        assert publish(site, "sql", r=4) == source
        await put(gateway, "sql", source)
        await until(lambda: loaded(gateway, "a").get("sql") not in (None, before))
        await until(lambda: not Path(before).exists())
        assert (await reasons(gateway, "sql"))[-2:] == ["ArtifactChanged", "Loaded"]


async def test_the_progress_of_its_download_is_the_adapters(tmp_path: Path) -> None:
    """As far as it is, and nothing once it is there."""
    async with web() as site, delegating(tmp_path, "a") as (gateway, _):
        page = site.pages["/sql.zip"] = Page(zipped({"adapter_config.json": b'{"r": 8}', "w": bytes(6 << 20)}))
        page.hold = asyncio.Event()
        await put(gateway, "sql", site.url("/sql.zip"))
        await until(lambda: bool((found := record(gateway, "sql").progress) and found.done_bytes))
        progress = (await status(gateway, "sql"))["progress"]
        assert 0 < progress.pop("doneBytes") < len(page.body)
        assert progress == {"totalBytes": len(page.body), "doneFiles": 0, "totalFiles": 1}
        page.hold.set()
        await phase(gateway, "sql", "Running")
        assert (await status(gateway, "sql"))["progress"] is None


async def test_one_fetches_for_all(tmp_path: Path) -> None:
    """They share a machine: the others load what is there."""
    async with web() as site, delegating(tmp_path, "a", "b") as (gateway, sidecars):
        await applied(gateway, "sql", publish(site, "sql"))
        await until(lambda: loaded(gateway, "a") == loaded(gateway, "b") != {})
        kinds = [one["kind"] for one in await jobs(sidecars)]
        assert sorted(kinds) == ["download_model", "load_lora_adapter", "load_lora_adapter"]


async def test_a_path_of_this_machine_needs_no_sidecar(tmp_path: Path) -> None:
    """There is nothing to fetch, and the sidecar may not read everywhere: the engine is told by the gateway."""
    async with delegating(tmp_path, "a") as (gateway, sidecar):
        path = artifact(tmp_path, "sql")
        await applied(gateway, "sql", path)
        assert loaded(gateway, "a") == {"sql": path} and await jobs(sidecar) == []


@DIALECT
async def test_an_engines_refusal_is_told_as_its_own(options: SimOptions, tmp_path: Path) -> None:
    """What may pass is tried again, what stays is final at once."""
    async with web() as site, delegating(tmp_path, "a", options=options) as (gateway, _):
        gateway.sims["a"].fault(fail_load={"times": 2, "status": 503})
        await applied(gateway, "sql", publish(site, "sql"))
        assert await reasons(gateway, "sql") == ["Scheduled", "LoadingError", "LoadingError", "Loaded"]
        gateway.sims["a"].fault(fail_load={"times": 1, "status": 401})
        await put(gateway, "chat", publish(site, "chat"))
        await phase(gateway, "chat", "Failed")
        assert "answered 401" in str((await status(gateway, "chat"))["conditions"])


async def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    """The sidecar's reason is the adapter's, and nothing is tried again."""
    async with web() as site, delegating(tmp_path, "a") as (gateway, _):
        await put(gateway, "sql", site.url("/nothing/adapter_config.json"))
        await phase(gateway, "sql", "Failed")
        assert "/nothing/adapter_config.json" in str((await status(gateway, "sql"))["conditions"])
        assert await reasons(gateway, "sql") == ["Scheduled", "LoadingFailed", "ModelAdapterLoadingError"]


async def test_a_sidecar_that_is_busy_with_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else has it load one: it is tried again, and nobody goes past it to the engine."""
    monkeypatch.setattr(backoff, "DELAYS", (0.1, 0.2, 0.4, 0.8, 1.6))
    async with web() as site, delegating(tmp_path, "a") as (gateway, [sidecar]):
        by_hand = {"lora_name": "sql", "source": publish(site, "slow"), "output_dir": str(tmp_path / "by-hand")}
        page = site.pages["/slow/adapter_config.json"]
        page.hold = asyncio.Event()
        job = (await sidecar.post("/v1/load_lora_adapter", json=by_hand | {"async_download": True})).json()["job_id"]
        await asyncio.wait_for(page.held.wait(), 10)
        await put(gateway, "sql", publish(site, "sql"))
        await until(lambda: record(gateway, "sql").places["a"].tries.failures == 1)
        assert "it is busy" in record(gateway, "sql").places["a"].tries.problem and loaded(gateway, "a") == {}
        await sidecar.delete(f"/v1/jobs/{job}")
        await phase(gateway, "sql", "Running")


async def test_another_wish_calls_the_download_off(tmp_path: Path) -> None:
    """The sidecar is told, and leaves nothing half."""
    async with web() as site, delegating(tmp_path, "a") as (gateway, sidecar):
        slow = publish(site, "slow")
        page = site.pages["/slow/adapter_config.json"]
        page.hold = asyncio.Event()
        await put(gateway, "sql", slow)
        await asyncio.wait_for(page.held.wait(), 10)
        await applied(gateway, "sql", publish(site, "sql"))
        assert [one["status"] for one in await jobs(sidecar)] == ["cancelled", "completed", "completed"]
        (path,) = loaded(gateway, "a").values()
        await until(lambda: whole_folders(tmp_path) == [path])


def whole_folders(folder: Path) -> list[str]:
    """All there is of the adapter ``sql``; what is not whole counts as well."""
    home = folder / "torpor.adapters" / "sql"
    return [str(one) for one in home.iterdir() if one.suffix != ".lock"]


# -- killed ------------------------------------------------------------------------------------------------------


class Process:
    """``python -m runtime`` on a port that stays the same."""

    def __init__(self, sim: Sim, folder: Path) -> None:
        self.port = free_port()
        words = ["-E", sim.spec.options.dialect, "-B", sim.url, "-H", "127.0.0.1", "-P", str(self.port)]
        self._words = [sys.executable, "-m", "runtime", *words, "--allow-root", str(folder)]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(*self._words, stderr=asyncio.subprocess.DEVNULL)

    async def until_it_loads(self, name: str) -> None:
        async with asyncio.timeout(15), httpx2.AsyncClient(trust_env=False) as client:
            while True:
                found = (await client.get(f"http://127.0.0.1:{self.port}/v1/jobs")).json()["data"]
                if any(one.get("lora_name") == name and one["phase"] == "loading" for one in found):
                    return
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


@pytest.mark.parametrize("options", BOTH, ids=lambda options: options.dialect)
async def test_a_sidecar_that_is_killed(options: SimOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a download, or while the engine loads: nothing half is loaded, and it is tried again."""
    monkeypatch.setattr(backoff, "DELAYS", (0.5, 1, 2, 2, 2))
    async with web() as site, engines(Spec("base", options)) as sims:
        sidecar = Process(sims["base"], tmp_path)
        sims["base"].spec = Beside("base", options, port=sidecar.port)
        await sidecar.start()
        try:
            async with gateway(tmp_path, sims) as running:
                for number in range(KILLS):
                    await killed_once(running, sidecar, site, f"sql{number}", while_loading=number % 2 == 1)
                await sidecar.kill()
                await running.client.delete("/adapters/sql0")  # which needs no sidecar
                await until(lambda: "sql0" not in running.live.adapters.records)
                assert "sql0" not in loaded(running, "base")
        finally:
            await sidecar.kill()


async def killed_once(gateway: Gateway, sidecar: Process, site: Web, name: str, *, while_loading: bool) -> None:
    source = publish(site, name)
    page = site.pages[f"/{name}/adapter_config.json"]
    sim = gateway.sims["base"]
    if while_loading:
        sim.fault(slow_load={"times": 1, "seconds": 1})
    else:
        page.hold = asyncio.Event()
    await put(gateway, name, source)
    if while_loading:
        await sidecar.until_it_loads(name)
    else:
        await asyncio.wait_for(page.held.wait(), 15)
        assert name not in loaded(gateway, "base")
    await sidecar.kill()
    if page.hold is not None:
        page.hold.set()
    await until(lambda: bool(record(gateway, name).places["base"].tries.failures))
    await sidecar.start()
    await phase(gateway, name, "Running")
    folder = Path(loaded(gateway, "base")[name])
    whole = await asyncio.to_thread(marker.read, folder)
    assert whole is not None and await asyncio.to_thread(marker.damage, folder, whole) is None
