"""Artefacts side by side, one folder for each revision of a source: for who must not have files change under a path."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from runtime.downloads.credentials import Credentials
from runtime.downloads.errors import SourceChanged
from runtime.downloads.fetch import CHANGES, Artifact, fetch
from runtime.downloads.origins import open_origin
from runtime.downloads.progress import OnProgress, ignore
from runtime.downloads.source import Source, parse


async def fetch_keyed(
    source: str,
    root: Path,
    credentials: Credentials = Credentials(),
    *,
    max_workers: int = 8,
    on_progress: OnProgress = ignore,
) -> Artifact:
    """As ``fetch``, into the folder of ``root`` that belongs to the source and what it holds now.

    A source that tells no revision has one folder, which is replaced.
    """
    parsed = parse(source)
    changes = 0
    while True:
        async with open_origin(parsed, credentials) as origin:
            revision = (await origin.listing()).revision
        target = root / folder_name(parsed, revision)
        try:
            return await fetch(
                source, target, credentials, max_workers=max_workers, on_progress=on_progress, revision=revision
            )
        except SourceChanged:
            changes += 1
            if changes == CHANGES:
                raise


def folder_name(source: Source, revision: str | None) -> str:
    """One to read, and no two alike for different content."""
    last = re.sub(r"[^A-Za-z0-9._-]+", "-", source.shown.rstrip("/").rpartition("/")[2])[:60].strip(".-")
    key = hashlib.sha256(f"{source.identity}\n{revision}".encode()).hexdigest()[:16]
    return f"{last or 'artifact'}-{key}"
