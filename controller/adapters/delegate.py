"""The sidecar beside an engine, which fetches adapters and has the engine load them ("with runtime")."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2

from runtime.adapters import UnfitAdapter
from runtime.downloads import errors as downloads
from runtime.downloads.errors import DownloadError, SourceInvalid
from runtime.downloads.progress import OnProgress, Progress, ignore
from runtime.engines import base
from runtime.engines.base import AdapterHost, AdapterSeen, EngineError, EngineRefused, EngineTimeout, EngineUnreachable
from runtime.engines.control import Control
from runtime.engines.spec import Capabilities

FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS, POLL_GROWTH = 0.05, 1.0, 1.5
SPARE_SECONDS = 10.0
"""What a sidecar gets on top of the engine's own deadline: it has to tell what came of it."""

DOWNLOAD = "/v1/download_model"
BUSY = 409
_REFUSALS = {kind.__name__: kind for kind in (base.AlreadyLoaded, base.NotLoaded)}
_FAILURES = {kind.__name__: kind for kind in (EngineTimeout, EngineUnreachable, base.NotSupported)}


class Sidecar:
    """``control``: calls to it, with the key that it is to ask the engine with, if that is not its own."""

    def __init__(self, control: Control, call_seconds: float) -> None:
        self._control = control
        self._call_seconds = call_seconds + SPARE_SECONDS

    async def fetch(
        self, source: str, root: Path, credentials: Mapping[str, str], on_progress: OnProgress = ignore
    ) -> str:
        """The folder below ``root`` with what the source holds now. When cancelled, nothing half is left.

        Raises ``DownloadError``, and ``EngineError`` when it does not answer. A second call joins the first, also
        that of a gateway which is no more.
        """
        asked = {"source": source, "output_dir": str(root), "config": dict(credentials)}
        begun = await self._control.send("POST", DOWNLOAD, json=asked | {"keyed": True, "async_download": True})
        if begun.status_code != 202:
            raise self._not_begun(begun)
        job = f"/v1/jobs/{self._control.field(begun, 'job_id')}"
        try:
            path = Path(str((await self._ended(job, on_progress))["path"]))
        except asyncio.CancelledError:
            await self._call_off(job)
            raise
        if not await asyncio.to_thread(_is_below, root, path):
            raise SourceInvalid(f"the sidecar says that it fetched to {path}, which is not below {root}")
        return str(path)

    async def load(self, name: str, path: str, *, replace: bool) -> str:
        asked = {"lora_name": name, "lora_path": path, "load_inplace": replace}
        return await self._tell("/v1/lora_adapter/load", asked)

    async def unload(self, name: str) -> str:
        return await self._tell("/v1/lora_adapter/unload", {"lora_name": name, "lora_int_id": 0})

    async def _ended(self, job: str, on_progress: OnProgress) -> Mapping[str, Any]:
        pause = FIRST_POLL_SECONDS
        while True:
            answer = await self._control.send("GET", job)
            if answer.status_code == 404:
                raise EngineUnreachable(self._control.name, f"GET {job}", "it was started anew meanwhile")
            status = self._control.field(answer, "status")
            if status == "completed":
                result: Mapping[str, Any] = self._control.field(answer, "result")
                return result
            if status == "cancelled":  # by hand, or because it was told to stop
                raise EngineUnreachable(self._control.name, f"GET {job}", "it has called the download off")
            if status != "running":
                raise _failure(self._control.field(answer, "error"))
            on_progress(Progress(**self._control.field(answer, "progress")))
            await asyncio.sleep(pause)
            pause = min(pause * POLL_GROWTH, LONGEST_POLL_SECONDS)

    async def _call_off(self, job: str) -> None:
        """If it does not hear of it, it goes on, and whoever asks next joins it."""
        try:
            await self._control.send("DELETE", job)
        except EngineError:
            pass

    async def _tell(self, path: str, asked: Mapping[str, Any]) -> str:
        answer = await self._control.send("POST", path, json=asked, timeout=self._call_seconds)
        if answer.status_code < 400:
            return answer.text
        raise self._refusal(answer, f"POST {path}")

    def _refusal(self, answer: httpx2.Response, operation: str) -> Exception:
        """As the engine itself would have refused, for that is whom it speaks for."""
        name, said = self._control.name, _object(answer)
        kind, message = str(said.get("type")), str(said.get("message") or answer.text)
        if kind == UnfitAdapter.__name__:
            return UnfitAdapter(message)
        if kind in _FAILURES:
            return _FAILURES[kind](name, operation, message)
        if kind == "Conflict":
            return EngineTimeout(name, operation, f"it is busy: {message}")
        text = message.removeprefix(f"HTTP {answer.status_code}: ")
        return _REFUSALS.get(kind, EngineRefused)(name, operation, answer.status_code, text)

    def _not_begun(self, answer: httpx2.Response) -> Exception:
        reason = str(_object(answer).get("detail") or answer.text)[:1000]
        if answer.status_code == BUSY:
            return EngineTimeout(self._control.name, f"POST {DOWNLOAD}", f"it is busy: {reason}")
        if answer.status_code < 500:
            return SourceInvalid(f"{self._control.name}: {reason}")
        return self._control.refusal(answer)


class Delegate:
    """An engine that is told by its sidecar what to load. What it has is asked of the engine itself."""

    def __init__(self, engine: AdapterHost, sidecar: Sidecar) -> None:
        self._engine = engine
        self._sidecar = sidecar

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    async def adapters(self) -> Mapping[str, AdapterSeen]:
        return await self._engine.adapters()

    async def load_adapter(self, name: str, path: str, *, replace: bool = False) -> str:
        return await self._sidecar.load(name, path, replace=replace)

    async def unload_adapter(self, name: str) -> str:
        """What is not wanted any more goes, whether the sidecar lives or not."""
        try:
            return await self._sidecar.unload(name)
        except EngineUnreachable:
            return await self._engine.unload_adapter(name)


async def fetch_by_any(
    sidecars: Sequence[Sidecar],
    source: str,
    root: Path,
    credentials: Mapping[str, str],
    on_progress: OnProgress = ignore,
) -> str:
    """By the first one that answers: they are on one machine, and what one has fetched all can read."""
    for sidecar in sidecars[:-1]:
        try:
            return await sidecar.fetch(source, root, credentials, on_progress)
        except EngineUnreachable:
            continue
    return await sidecars[-1].fetch(source, root, credentials, on_progress)


def _failure(error: Mapping[str, Any]) -> DownloadError:
    """The error of a job, as the one it was."""
    kind, message = getattr(downloads, str(error.get("type")), None), str(error.get("message"))
    if isinstance(kind, type) and issubclass(kind, DownloadError):
        return kind(message)
    return DownloadError(message)


def _is_below(root: Path, path: Path) -> bool:
    return root.resolve() in path.resolve().parents


def _object(answer: httpx2.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
