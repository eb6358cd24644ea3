"""Archives from outside, unpacked so that nothing lands elsewhere and nothing grows without bound. Blocks."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

from runtime.downloads.errors import ArchiveInvalid, SourceInvalid
from runtime.downloads.listing import MARKER, name_parts
from runtime.downloads.marker import Entry

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
MAX_MEMBERS = 10_000
LARGEST_READ = 16 << 20
"""Nothing reads more at once but a header that claims to be huge."""
CHUNK = 1 << 20

Member = tuple[str, int, Callable[[], IO[bytes]]]
GoOn = Callable[[], None]


def is_archive(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def limit(archive_bytes: int) -> int:
    """Bytes an archive of this size may grow to: weights hardly compress."""
    return max(1 << 30, 20 * archive_bytes)


def unpack(archive: Path, into: Path, go_on: GoOn) -> dict[str, Entry]:
    """Make ``into`` the folder that the archive holds; where all is in one folder, that one. Raises ``ArchiveInvalid``.

    Regular files only: an archive with links, devices, or names that lead out of it is refused as a whole.
    """
    fresh = into.with_name(into.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(into, ignore_errors=True)
    fresh.mkdir(parents=True)
    with _members(archive, go_on) as members:
        entries = _write_all(members, fresh, limit(archive.stat().st_size), go_on)
    tops = {name.split("/")[0] for name in entries}
    if len(tops) == 1 and all("/" in name for name in entries):
        top = tops.pop()
        (fresh / top).replace(into)
        fresh.rmdir()
        return {name.removeprefix(f"{top}/"): entry for name, entry in sorted(entries.items())}
    fresh.replace(into)
    return dict(sorted(entries.items()))


def _write_all(members: Iterator[Member], folder: Path, most: int, go_on: GoOn) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    claimed = 0
    for name, size, open_member in members:
        try:
            parts = name_parts(name)
        except SourceInvalid as unsafe:
            raise ArchiveInvalid(f"in the archive, {unsafe}") from unsafe
        claimed += size
        if claimed > most or len(entries) == MAX_MEMBERS:
            raise ArchiveInvalid(f"the archive holds more than {MAX_MEMBERS} files, or more than {most} bytes")
        if parts[-1] == MARKER:
            continue
        path = folder.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            entries["/".join(parts)] = _write(open_member, path, size, go_on)
        except (FileExistsError, NotADirectoryError) as twice:
            raise ArchiveInvalid(f"the archive holds {name[:200]!r} twice") from twice
    if not entries:
        raise ArchiveInvalid("the archive holds no files")
    return entries


def _write(open_member: Callable[[], IO[bytes]], path: Path, size: int, go_on: GoOn) -> Entry:
    digest, written = hashlib.sha256(), 0
    with open_member() as content, path.open("xb") as file:
        while chunk := content.read(CHUNK):
            go_on()
            written += len(chunk)
            if written > size:
                raise ArchiveInvalid(f"{path.name} is larger than the archive says")
            digest.update(chunk)
            file.write(chunk)
    if written != size:
        raise ArchiveInvalid(f"{path.name} is shorter than the archive says")
    return Entry(size, digest.hexdigest())


@contextmanager
def _members(archive: Path, go_on: GoOn) -> Iterator[Iterator[Member]]:
    """Broken archives become ``ArchiveInvalid``; a disk that is full stays an ``OSError``."""
    kind = _zip if archive.name.lower().endswith(".zip") else _tar
    try:
        with closing(kind(archive, go_on)) as members:
            yield members
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as broken:
        raise ArchiveInvalid(f"{archive.name} is broken, or is no archive: {broken}") from broken
    except (NotImplementedError, RuntimeError) as unknown:  # zipfile: a method it does not know; encryption
        raise ArchiveInvalid(f"{archive.name} cannot be unpacked: {unknown}") from unknown


def _zip(archive: Path, go_on: GoOn) -> Generator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            go_on()
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveInvalid(f"the archive holds {member.filename[:200]!r}, which is no regular file")
            if not member.is_dir():
                yield member.filename, member.file_size, partial(opened.open, member)


def _tar(archive: Path, go_on: GoOn) -> Generator[Member]:
    compressed = not archive.name.lower().endswith(".tar")
    with (
        cast(IO[bytes], gzip.open(archive) if compressed else archive.open("rb")) as content,
        tarfile.open(fileobj=_Bounded(content, go_on), mode="r:") as opened,
    ):
        for member in opened:
            if member.isdir():
                continue
            if not member.isfile() or member.issparse():
                raise ArchiveInvalid(f"the archive holds {member.name[:200]!r}, which is no regular file")
            yield member.name.removeprefix("./"), member.size, partial(_content, opened, member)


def _content(opened: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], opened.extractfile(member))  # None only for what is no file


class _Bounded(io.RawIOBase):
    """What tarfile reads from. A header may claim any size, and tarfile would read it into memory."""

    def __init__(self, content: IO[bytes], go_on: GoOn) -> None:
        self._content = content
        self._go_on = go_on

    def read(self, size: int = -1) -> bytes:
        self._go_on()
        if not 0 <= size <= LARGEST_READ:
            raise ArchiveInvalid("the archive holds a header that is too large")
        return self._content.read(size)

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        return self._content.seek(position, whence)

    def tell(self) -> int:
        return self._content.tell()
