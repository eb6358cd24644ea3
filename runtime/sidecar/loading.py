"""An adapter from its source into the engine: fetched whole, looked at, and only then is the engine bothered."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime import adapters
from runtime.adapters import NAME_RULE, UnfitAdapter, is_name
from runtime.downloads.credentials import Credentials
from runtime.downloads.fetch import Artifact, fetch
from runtime.downloads.source import LocalSource, WebSource
from runtime.downloads.source import parse as parse_source
from runtime.engines.base import AlreadyLoaded, Engine
from runtime.sidecar.beside import Beside
from runtime.sidecar.jobs import Job, Jobs
from runtime.sidecar.problems import BadRequest, Conflict
from runtime.sidecar.roots import Roots

LOAD, DOWNLOAD = "load_lora_adapter", "download_model"


@dataclass(frozen=True, slots=True)
class Download:
    """``target`` as it was asked for; ``shown`` of a source has no signature in it."""

    source: str
    target: Path
    credentials: Credentials = field(repr=False)
    max_workers: int = 8

    @property
    def shown(self) -> str:
        parsed = parse_source(self.source)
        return parsed.shown if isinstance(parsed, WebSource) else self.source


@dataclass(frozen=True, slots=True)
class Load:
    """``download`` None: the files are at ``path`` already. ``replace``: take the place of one from another path."""

    name: str
    path: Path
    download: Download | None
    replace: bool = False


class Loader:
    """Loads, unloads and downloads as jobs. Remembers which revision it loaded: the engine cannot tell."""

    def __init__(self, jobs: Jobs, roots: Roots, max_rank: int | None) -> None:
        self.jobs = jobs
        self._roots = roots
        self._max_rank = max_rank
        self._revisions: dict[str, str | None] = {}
        self._turns: dict[str, _Turn] = {}

    async def checked(self, download: Download) -> Download:
        """What may be read and written. Raises ``BadRequest``, ``SourceInvalid``."""
        source = parse_source(download.source)
        if isinstance(source, LocalSource):
            await self.allowed(str(source.path), "source")
        await self.allowed(str(download.target), "output_dir")
        return download

    async def allowed(self, path: str, what: str) -> Path:
        return await asyncio.to_thread(self._roots.allow, path, what)

    def download(self, wanted: Download) -> Job:
        async def work(job: Job) -> Any:
            artifact = await self._fetch(job, wanted)
            return {"path": str(artifact.path), "revision": artifact.revision, "bytes": artifact.bytes}

        shown = {"source": wanted.shown, "output_dir": str(wanted.target)}
        return self.jobs.start(DOWNLOAD, wanted, frozenset({str(wanted.target)}), shown, work)

    def load(self, wanted: Load, beside: Beside) -> Job:
        async def work(job: Job) -> Any:
            return await self._load(job, wanted, beside)

        download = wanted.download
        shown = {
            "lora_name": wanted.name,
            "source": None if download is None else download.shown,
            "output_dir": str(wanted.path),
        }
        claims = frozenset({f"adapter {wanted.name}", str(wanted.path)})
        return self.jobs.start(LOAD, (wanted, beside.spec.api_key), claims, shown, work)

    async def unload(self, name: str, beside: Beside) -> str:
        """The engine's answer. Raises ``Conflict`` while a load of it is at work, and ``EngineError``."""
        check_name(name)
        for job in self.jobs.running():
            if f"adapter {name}" in job.claims:
                raise Conflict(f"job {job.id} is loading {name!r}")
        async with self._turn(name):
            answer = await beside.engine.unload_adapter(name)
            self._revisions.pop(name, None)
            return answer

    async def _load(self, job: Job, wanted: Load, beside: Beside) -> Mapping[str, Any]:
        artifact = None if wanted.download is None else await self._fetch(job, wanted.download)
        folder = wanted.path if artifact is None else artifact.path
        job.phase, job.final = "loading", True
        config = await asyncio.to_thread(adapters.read_config, folder)
        reason = adapters.check(config, await beside.bases(), self._max_rank)
        if reason is not None:
            raise UnfitAdapter(f"{wanted.name}: {reason}")
        revision = None if artifact is None else artifact.revision
        async with self._turn(wanted.name):
            await self._check_revision(wanted, revision, beside)
            answer = await self._tell(wanted, beside.engine)
            self._revisions[wanted.name] = revision
        return as_object(answer)

    async def _tell(self, wanted: Load, engine: Engine) -> str:
        try:
            return await adapters.load(engine, wanted.name, str(wanted.path))
        except AlreadyLoaded:
            if not wanted.replace:
                raise
        if engine.capabilities.replaces_adapters:
            return await engine.load_adapter(wanted.name, str(wanted.path), replace=True)
        await adapters.unload(engine, wanted.name)
        return await engine.load_adapter(wanted.name, str(wanted.path))

    async def _check_revision(self, wanted: Load, revision: str | None, beside: Beside) -> None:
        """The engine would call the files of another revision loaded, since their path is the same."""
        known = self._revisions.get(wanted.name)
        if known is None or revision is None or known == revision:
            return
        seen = (await beside.engine.adapters()).get(wanted.name)
        if seen is not None and seen.path == str(wanted.path):
            raise Conflict(
                f"{wanted.name!r} is loaded from {wanted.path} as it was before its source changed (then {known}, now "
                f"{revision}): unload it first, or name another output_dir"
            )

    async def _fetch(self, job: Job, wanted: Download) -> Artifact:
        return await fetch(
            wanted.source,
            wanted.target,
            wanted.credentials,
            max_workers=wanted.max_workers,
            on_progress=job.told,
        )

    @contextlib.asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """The engine is told one thing at a time about one name."""
        turn = self._turns.setdefault(name, _Turn())
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                self._turns.pop(name, None)


class _Turn:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


def check_name(name: str) -> None:
    if not is_name(name):
        raise BadRequest(f"lora_name must be {NAME_RULE}, not {name[:130]!r}")


def as_object(answer: str) -> Mapping[str, Any]:
    """An engine's answer as JSON: vLLM's is plain text."""
    try:
        body = json.loads(answer)
    except ValueError:
        return {"message": answer}
    return body if isinstance(body, dict) else {"message": answer}
