"""An adapter from its source into the engine: fetched whole, looked at, and only then is the engine bothered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime import adapters
from runtime.adapters import NAME_RULE, UnfitAdapter, is_name
from runtime.downloads import marker
from runtime.downloads.credentials import Credentials
from runtime.downloads.errors import SourceChanged
from runtime.downloads.fetch import BY_CONTENT, Artifact, fetch
from runtime.downloads.keyed import fetch_keyed
from runtime.downloads.source import LocalSource, WebSource
from runtime.downloads.source import parse as parse_source
from runtime.engines.base import Engine, EngineError, NotLoaded
from runtime.sidecar import leftovers
from runtime.sidecar.beside import Beside
from runtime.sidecar.jobs import Job, Jobs
from runtime.sidecar.problems import BadRequest, Conflict
from runtime.sidecar.roots import Roots

LOAD, UNLOAD, DOWNLOAD = "load_lora_adapter", "unload_lora_adapter", "download_model"


@dataclass(frozen=True, slots=True)
class Download:
    """``target``: the folder it becomes; ``keyed``, the one that gets a folder for each revision of each source."""

    source: str
    target: Path
    credentials: Credentials = field(repr=False)
    max_workers: int = 8
    keyed: bool = False

    @property
    def shown(self) -> str:
        """The source without a signature in it."""
        parsed = parse_source(self.source)
        return parsed.shown if isinstance(parsed, WebSource) else self.source


@dataclass(frozen=True, slots=True)
class Load:
    """``download`` None: the files are at ``path``. A keyed one takes the place of what is loaded, and of its files.

    ``replace``: it is loaded also where the engine has one of that name, even from that very path.
    """

    name: str
    path: Path
    download: Download | None
    replace: bool = False

    @property
    def keyed(self) -> bool:
        return self.download is not None and self.download.keyed


@dataclass(frozen=True, slots=True)
class Unload:
    """``home``: where keyed downloads of it are, to be deleted; then it is no error that it is not loaded."""

    name: str
    home: Path | None = None
    keep_files: bool = True


class Loader:
    """Whatever changes files or adapters, as jobs. Remembers which revision it loaded: the engine cannot tell."""

    def __init__(self, jobs: Jobs, roots: Roots, max_rank: int | None) -> None:
        self.jobs = jobs
        self._roots = roots
        self._max_rank = max_rank
        self._revisions: dict[str, str | None] = {}

    async def allowed(self, path: str, what: str) -> Path:
        """Raises ``BadRequest``."""
        return await asyncio.to_thread(self._roots.allow, path, what)

    async def checked(self, download: Download) -> Download:
        """What may be read. Raises ``BadRequest``, ``SourceInvalid``."""
        source = parse_source(download.source)
        if isinstance(source, LocalSource):
            await self.allowed(str(source.path), "source")
        return download

    def download(self, wanted: Download) -> Job:
        """Its result: path, revision, bytes."""

        async def work(job: Job) -> Any:
            artifact = await self._fetch(job, wanted)
            return {"path": str(artifact.path), "revision": artifact.revision, "bytes": artifact.bytes}

        shown = {"source": wanted.shown, "output_dir": str(wanted.target)}
        return self.jobs.start(DOWNLOAD, wanted, frozenset({str(wanted.target)}), shown, work)

    def load(self, wanted: Load, beside: Beside) -> Job:
        """Its result: the path, and the engine's answer as JSON."""

        async def work(job: Job) -> Any:
            return await self._load(job, wanted, beside)

        source = None if wanted.download is None else wanted.download.shown
        shown = {"lora_name": wanted.name, "source": source, "output_dir": str(wanted.path)}
        claims = frozenset({_claim(wanted.name), str(wanted.path)})
        return self.jobs.start(LOAD, (wanted, beside.spec.api_key), claims, shown, work)

    def unload(self, wanted: Unload, beside: Beside) -> Job:
        """Its result: the engine's answer as JSON."""

        async def work(job: Job) -> Any:
            job.go_on("unloading")
            return await self._unload(wanted, beside)

        claims = frozenset({_claim(wanted.name)})
        return self.jobs.start(UNLOAD, (wanted, beside.spec.api_key), claims, {"lora_name": wanted.name}, work)

    async def _load(self, job: Job, wanted: Load, beside: Beside) -> Mapping[str, Any]:
        artifact = await self._fetch_for(job, wanted, beside.engine)
        folder = wanted.path if artifact is None else artifact.path
        job.go_on("loading")
        config = await asyncio.to_thread(adapters.read_config, folder)
        reason = adapters.check(config, await beside.engine.bases(), self._max_rank)
        if reason is not None:
            raise UnfitAdapter(f"{wanted.name}: {reason}")
        path = str(folder if wanted.keyed else wanted.path)
        if wanted.keyed or wanted.replace:
            answer = await adapters.put(beside.engine, wanted.name, path, afresh=wanted.replace)
        else:
            answer = await adapters.load(beside.engine, wanted.name, path)
        self._revisions[wanted.name] = None if artifact is None else artifact.revision
        if wanted.keyed:
            await _tidy(wanted.path, beside.engine)
        return {"path": path, "engine": as_object(answer)}

    async def _unload(self, wanted: Unload, beside: Beside) -> Mapping[str, Any]:
        engine, home = beside.engine, wanted.home
        seen = None if home is None else (await engine.adapters()).get(wanted.name)
        try:
            answer = as_object(await engine.unload_adapter(wanted.name))
        except NotLoaded:
            if home is None:
                raise
            answer = {}
        self._revisions.pop(wanted.name, None)
        if home is not None and not wanted.keep_files:
            await _tidy(home, engine)
            elsewhere = None if seen is None or seen.path is None else Path(seen.path).parent
            if elsewhere is not None and elsewhere != home and elsewhere.name == wanted.name:
                await _tidy(await self.allowed(str(elsewhere), "the adapter's folder"), engine)
        return answer

    async def _fetch_for(self, job: Job, wanted: Load, engine: Engine) -> Artifact | None:
        """What it is loaded from. Files that the engine has loaded from the same path stay as they are: of others
        there it would say that it has them.
        """
        if wanted.download is None:
            return None
        known = None if wanted.keyed else await self._loaded(wanted.name, wanted.path, engine)
        told = known is not None and not known.startswith(BY_CONTENT)
        try:
            artifact = await self._fetch(job, wanted.download, known if told else None)
        except SourceChanged as changed:
            if told:
                raise _conflict(wanted, str(changed)) from changed
            raise
        if known not in (None, artifact.revision):
            self._revisions[wanted.name] = known
            raise _conflict(wanted, f"then {known}, now {artifact.revision}")
        return artifact

    async def _loaded(self, name: str, path: Path, engine: Engine) -> str | None:
        """The revision that the engine has from ``path``, as far as it is known. Its files say so, too."""
        try:
            seen = (await engine.adapters()).get(name)
        except EngineError:
            return None  # it is asked again when it is to load
        if seen is None or seen.path != str(path):
            return None
        if known := self._revisions.get(name):
            return known
        found = await asyncio.to_thread(marker.read, path)
        return None if found is None else found.revision

    async def _fetch(self, job: Job, wanted: Download, revision: str | None = None) -> Artifact:
        source, target, workers = wanted.source, wanted.target, wanted.max_workers
        if wanted.keyed:
            return await fetch_keyed(source, target, wanted.credentials, max_workers=workers, on_progress=job.told)
        return await fetch(
            source, target, wanted.credentials, max_workers=workers, on_progress=job.told, revision=revision
        )


def _conflict(wanted: Load, how: str) -> Conflict:
    return Conflict(
        f"{wanted.name!r} is loaded from {wanted.path} as it was before its source changed ({how}): unload it first, "
        "or name another output_dir"
    )


async def _tidy(home: Path, engine: Engine) -> None:
    """Delete downloads of one adapter that no adapter is loaded from."""
    used = [adapter.path for adapter in (await engine.adapters()).values() if adapter.path]
    await asyncio.to_thread(leftovers.remove, home, used)


def _claim(name: str) -> str:
    return f"adapter {name}"


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
