"""The folders that adapters are loaded from: fetched once, checked, and deleted when nobody uses them any more."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from controller.adapters.credentials import Credentials
from controller.adapters.delegate import Sidecar, fetch_by_any
from controller.adapters.spec import AdapterSpec
from runtime import adapters
from runtime.adapters import UnfitAdapter
from runtime.downloads.credentials import Credentials as StoreCredentials
from runtime.downloads.credentials import credentials_of
from runtime.downloads.fetch import Artifact
from runtime.downloads.progress import OnProgress, ignore
from runtime.downloads.source import LocalSource, parse
from runtime.settings import Settings

log = logging.getLogger(__name__)


class Fetch(Protocol):
    """Makes a folder below ``root`` that holds what the source holds now. Raises ``DownloadError``."""

    def __call__(
        self, source: str, root: Path, credentials: StoreCredentials, *, on_progress: OnProgress
    ) -> Awaitable[Artifact]: ...


class Artifacts:
    """Each artefact has a folder of its own, by adapter, source and revision: an engine never sees one change."""

    def __init__(self, folder: Path, fetch: Fetch, credentials: Credentials, settings: Settings) -> None:
        self._folder = folder
        self._fetch = fetch
        self._credentials = credentials
        self._settings = settings

    async def get(
        self, name: str, spec: AdapterSpec, sidecars: Sequence[Sidecar] = (), on_progress: OnProgress = ignore
    ) -> str:
        """The folder, whole: fetched by a sidecar if one is given. A path of this machine is used as it is.

        Raises ``DownloadError``, ``CredentialsUnusable``, and ``EngineError`` when no sidecar answers.
        """
        source = parse(spec.artifact_url)
        if isinstance(source, LocalSource):
            return str(source.path)
        given = await asyncio.to_thread(self._credentials.read, spec.secret) if spec.secret else {}
        root = self._folder / name
        if sidecars:
            return await fetch_by_any(sidecars, spec.artifact_url, root, given, on_progress)
        keys = credentials_of(given, self._settings)
        artifact = await self._fetch(spec.artifact_url, root, keys, on_progress=on_progress)
        return str(artifact.path)

    async def check(self, folder: str, bases: Sequence[str], max_rank: int | None) -> None:
        """Raises ``UnfitAdapter`` with the reason why an engine would refuse it."""
        config = await asyncio.to_thread(adapters.read_config, Path(folder))
        if problem := adapters.check(config, tuple(bases), max_rank):
            raise UnfitAdapter(problem)

    async def is_whole(self, folder: str) -> bool:
        return await asyncio.to_thread((Path(folder) / adapters.CONFIG_FILE).is_file)

    def owns(self, path: str | None) -> bool:
        """Whether ``path`` is one of our folders, whoever used it."""
        return path is not None and self._folder in Path(path).parents

    async def discard(self, name: str, used: Collection[str]) -> None:
        """Delete what ``name`` had fetched, but for what is still ``used``."""
        await asyncio.to_thread(_discard, self._folder / name, used)


def _discard(folder: Path, used: Collection[str]) -> None:
    if not folder.is_dir():
        return
    for one in folder.iterdir():
        if str(one) not in used:
            shutil.rmtree(one, ignore_errors=True) if one.is_dir() else one.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
