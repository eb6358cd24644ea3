"""What a source holds right now, and how its bytes are had: the seam between kinds of sources and the download."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from runtime.downloads.errors import SourceInvalid

MARKER = ".torpor-artifact.json"
"""The file that says of a folder that it is whole. Never taken from a source: only a download writes it."""
MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """``name``: below the target, with ``/``. ``digest``: ``sha256:…`` or ``git:…``, where the source promises one.

    ``etag``: what must be the same when the rest of the file is asked for. Without it and a digest, a file that was cut
    off begins anew.
    """

    name: str
    size: int | None
    etag: str | None = None
    digest: str | None = None
    place: str = ""

    @property
    def resumable(self) -> bool:
        return self.etag is not None or self.digest is not None


@dataclass(frozen=True, slots=True)
class Listing:
    """``revision`` is another whenever the content is; None when the source cannot tell."""

    revision: str | None
    files: tuple[RemoteFile, ...]

    @property
    def bytes(self) -> int | None:
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


class Origin(Protocol):
    """One source, open. Every failure is a ``DownloadError``."""

    async def listing(self) -> Listing: ...

    def read(self, file: RemoteFile, start: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes from ``start`` on, of just the file that was listed.

        ``SourceUnreachable`` when they break off, ``SourceChanged`` when it is another file now.
        """


def checked(files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
    """The files in order of their names, all of them safe to write below one folder. Raises ``SourceInvalid``."""
    kept = sorted((file for file in files if file.name != MARKER), key=lambda file: file.name)
    if len(kept) > MAX_FILES:
        raise SourceInvalid(f"more than {MAX_FILES} files")
    names = {file.name for file in kept}
    if len(names) != len(kept):
        raise SourceInvalid("two files have one name")
    for file in kept:
        parts = name_parts(file.name)
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in names:
                raise SourceInvalid(f"{'/'.join(parts[:depth])!r} is both a file and a folder")
    return tuple(kept)


def name_parts(name: str) -> list[str]:
    """The parts of a relative name from outside. Raises ``SourceInvalid`` when it could lead out of its folder."""
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or {"", ".", ".."} & {*parts}:
        raise SourceInvalid(f"the file name {name[:200]!r} is not safe")
    if any(len(part.encode()) > 240 for part in parts) or len(name.encode()) > 1000:
        raise SourceInvalid(f"the file name {name[:60]!r}… is too long")
    return parts


def revision_of(files: Sequence[RemoteFile]) -> str | None:
    """For sources that have no revision of their own: a digest of names, sizes and etags; None when one has no etag."""
    if any(file.etag is None for file in files):
        return None
    lines = sorted((file.name, file.size, file.etag) for file in files)
    return "list:" + hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:32]
