"""Artefacts side by side, one folder for each revision of a source: for who must not have files change under a path."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

from runtime.downloads import marker as markers
from runtime.downloads.credentials import Credentials
from runtime.downloads.errors import SourceChanged
from runtime.downloads.fetch import CHANGES, Artifact, fetch
from runtime.downloads.lock import only_writer
from runtime.downloads.origins import open_origin
from runtime.downloads.progress import OnProgress, ignore
from runtime.downloads.source import Source, parse
from runtime.downloads.threads import in_thread


async def fetch_keyed(
    source: str,
    root: Path,
    credentials: Credentials = Credentials(),
    *,
    max_workers: int = 8,
    on_progress: OnProgress = ignore,
) -> Artifact:
    """As ``fetch``, into the folder of ``root`` that belongs to the source and what it holds now.

    A source that tells no revision is fetched each time, and is known by its content.
    """
    parsed = parse(source)
    changes = 0
    while True:
        async with open_origin(parsed, credentials) as origin:
            revision = (await origin.listing()).revision
        target = root / folder_name(parsed, revision)
        try:
            artifact = await fetch(
                source, target, credentials, max_workers=max_workers, on_progress=on_progress, revision=revision
            )
            return artifact if revision else await _by_content(artifact, parsed)
        except SourceChanged:
            changes += 1
            if changes == CHANGES:
                raise


async def _by_content(fetched: Artifact, source: Source) -> Artifact:
    """Moved to a folder that is named by what is in it, unless there is one. Another call may do the same meanwhile."""
    async with only_writer(fetched.path.with_name(f".{fetched.path.name}.lock"), _patience):
        await in_thread(_move, fetched.path, source)
    return replace(fetched, path=fetched.path.with_name(folder_name(source, fetched.revision)))


def _move(folder: Path, source: Source) -> None:
    marker = markers.read(folder)
    if marker is None:
        return  # the other one did
    wanted = folder.with_name(folder_name(source, marker.revision))
    kept = markers.read(wanted)
    if kept is not None and markers.damage(wanted, kept) is None:
        shutil.rmtree(folder)
        return
    shutil.rmtree(wanted, ignore_errors=True)
    folder.replace(wanted)


async def _patience() -> None:
    """The other one moves a folder."""


def folder_name(source: Source, revision: str | None) -> str:
    """One to read, and no two alike for different content."""
    last = re.sub(r"[^A-Za-z0-9._-]+", "-", source.shown.rstrip("/").rpartition("/")[2])[:60].strip(".-")
    key = hashlib.sha256(f"{source.identity}\n{revision}".encode()).hexdigest()[:16]
    return f"{last or 'artifact'}-{key}"
