"""Folders and files of this machine: absolute paths, ``file://`` and ``pvc://``. They are copied."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runtime.downloads.errors import AccessDenied, NotFound, SourceChanged, SourceInvalid, SourceUnreachable
from runtime.downloads.listing import Listing, RemoteFile, checked, revision_of
from runtime.downloads.source import LocalSource
from runtime.downloads.threads import in_thread

CHUNK = 4 << 20


class LocalOrigin:
    """Links to files are followed, as the hub's cache is made of them; links to folders are refused."""

    def __init__(self, source: LocalSource) -> None:
        self._path = source.path

    async def listing(self) -> Listing:
        files = await in_thread(lambda: checked(self._files()))
        return Listing(revision_of(files), files)

    @asynccontextmanager
    async def read(self, file: RemoteFile, start: int) -> AsyncIterator[AsyncIterator[bytes]]:
        yield _chunks(file, start)

    def _files(self) -> list[RemoteFile]:
        try:
            if not self._path.is_dir():
                return [_file(self._path, self._path.name)]
            return [
                _file(Path(folder, name), Path(folder, name).relative_to(self._path).as_posix())
                for folder, _, names in self._folders()
                for name in names
            ]
        except OSError as error:
            raise _error(self._path, error) from error

    def _folders(self) -> list[tuple[str, list[str], list[str]]]:
        def refuse(error: OSError) -> None:
            raise error

        folders = list(os.walk(self._path, onerror=refuse))
        for folder, below, _ in folders:
            for name in below:
                if Path(folder, name).is_symlink():
                    raise SourceInvalid(f"{Path(folder, name)} is a link to a folder")
        return folders


def _file(path: Path, name: str) -> RemoteFile:
    seen = path.stat()
    if not stat.S_ISREG(seen.st_mode):
        raise SourceInvalid(f"{path} is neither a file nor a folder")
    return RemoteFile(name, seen.st_size, _etag(seen), place=str(path))


def _etag(seen: os.stat_result) -> str:
    return f"{seen.st_ino}-{seen.st_mtime_ns}-{seen.st_size}"


async def _chunks(file: RemoteFile, start: int) -> AsyncIterator[bytes]:
    position = start
    while chunk := await in_thread(_read_at, file, position):
        position += len(chunk)
        yield chunk


def _read_at(file: RemoteFile, position: int) -> bytes:
    """Opened for each chunk: a cancelled copy has nothing to close."""
    try:
        with Path(file.place).open("rb") as opened:
            if _etag(os.fstat(opened.fileno())) != file.etag:
                raise SourceChanged(f"{file.name} changed while it was copied")
            opened.seek(position)
            return opened.read(CHUNK)
    except OSError as error:
        raise _error(Path(file.place), error) from error


def _error(path: Path, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFound(f"{path} does not exist")
    if isinstance(error, PermissionError):
        return AccessDenied(f"{path} may not be read")
    return SourceUnreachable(f"{path} cannot be read: {error.strerror}")
