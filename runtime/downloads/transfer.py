"""One file from its source to the disk: resumed where it was cut off, counted, checked against what was promised."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from runtime.downloads.errors import ChecksumMismatch, NoSpace, SourceUnreachable
from runtime.downloads.listing import Origin, RemoteFile
from runtime.downloads.marker import Entry
from runtime.downloads.part import SPARE_BYTES, Part
from runtime.downloads.progress import Meter
from runtime.downloads.threads import in_stoppable_thread, in_thread

log = logging.getLogger(__name__)

CHUNK = 1 << 20
FLUSH_SECONDS = 0.5
PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts that brought nothing new; one that brought bytes starts afresh."""


class Arrival:
    """What is on the disk of one file, and its digests so far. Its methods block; none keeps the file open."""

    def __init__(self, file: RemoteFile, path: Path) -> None:
        self.size = 0
        self._file = file
        self._path = path
        self._sha256 = hashlib.sha256()
        self._git = _git_blob(file) if file.digest and file.digest.startswith("git:") else None

    def recall(self, go_on: Callable[[], None]) -> None:
        """Take in what an earlier attempt left behind."""
        self._path.touch()
        if not self._file.resumable:
            os.truncate(self._path, 0)
        with self._path.open("rb") as there:
            while chunk := there.read(CHUNK):
                go_on()
                self._absorb(chunk)

    def append(self, data: bytearray) -> None:
        if self._file.size is None and shutil.disk_usage(self._path.parent).free < SPARE_BYTES:
            raise NoSpace(f"{self._file.name}: {self.size} bytes came, and the disk is full")
        with self._path.open("ab") as file:
            file.write(data)
        self._absorb(data)

    def finish(self) -> Entry:
        """Raises ``ChecksumMismatch``. Afterwards the bytes are on the disk, whatever happens to the machine."""
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        if self._file.size not in (None, self.size):
            raise ChecksumMismatch(f"{self._file.name}: {self.size} bytes came, {self._file.size} were promised")
        kind, _, wanted = (self._file.digest or "").partition(":")
        seen = self._git.hexdigest() if self._git else self._sha256.hexdigest()
        if wanted and seen != wanted:
            raise ChecksumMismatch(f"{self._file.name}: its {kind} checksum is {seen}, {wanted} was promised")
        return Entry(self.size, self._sha256.hexdigest())

    def _absorb(self, data: bytes | bytearray) -> None:
        self._sha256.update(data)
        if self._git is not None:
            self._git.update(data)
        self.size += len(data)


def _git_blob(file: RemoteFile) -> hashlib._Hash:
    """Git names a file by its length and content. Only small ones: it takes as long as the other checksum."""
    return hashlib.sha1(b"blob %d\0" % (file.size or 0), usedforsecurity=False)


async def transfer(origin: Origin, file: RemoteFile, part: Part, meter: Meter) -> Entry:
    """Bring one file into ``part.files``. What came so far stays for the next time. ``DownloadError``, ``OSError``."""
    whole, pending = part.files / file.name, part.pending(file.name)
    if await in_thread(whole.exists):
        try:
            entry = await _checked(file, whole, meter)
            meter.file_done()
            return entry
        except ChecksumMismatch:
            await in_thread(whole.unlink)
    try:
        entry = await _attempts(origin, file, pending, meter)
    except ChecksumMismatch as mismatch:
        log.warning("%s; once more from the start", mismatch)
        await in_thread(pending.unlink)
        try:
            entry = await _attempts(origin, file, pending, meter)
        except ChecksumMismatch:
            await in_thread(pending.unlink)
            raise
    await in_thread(_move, pending, whole)
    meter.file_done()
    return entry


async def _checked(file: RemoteFile, whole: Path, meter: Meter) -> Entry:
    """A file that an earlier run brought: read once more, as its checksum belongs into the marker."""
    arrival = Arrival(file, whole)
    await in_stoppable_thread(arrival.recall)
    entry = await in_thread(arrival.finish)
    meter.at(file.name, arrival.size)
    return entry


async def _attempts(origin: Origin, file: RemoteFile, pending: Path, meter: Meter) -> Entry:
    failures, most = 0, 0
    while True:
        arrival = Arrival(file, pending)
        try:
            return await _attempt(origin, file, arrival, meter)
        except SourceUnreachable as cut:
            if arrival.size > most:
                failures, most = 0, arrival.size
            if failures == len(PAUSES):
                raise
            log.info("%s: %s; again in %g s", file.name, cut, PAUSES[failures])
        await asyncio.sleep(PAUSES[failures])
        failures += 1


async def _attempt(origin: Origin, file: RemoteFile, arrival: Arrival, meter: Meter) -> Entry:
    await in_stoppable_thread(arrival.recall)
    meter.at(file.name, arrival.size)
    while file.size is None or arrival.size < file.size:
        before = arrival.size
        async with origin.read(file, before) as chunks:
            await _receive(chunks, file, arrival, meter)
        if file.size is None:
            break
        if arrival.size == before:
            raise SourceUnreachable(f"{file.name} ended after {before} bytes, {file.size} were promised")
    return await in_thread(arrival.finish)


async def _receive(chunks: AsyncIterator[bytes], file: RemoteFile, arrival: Arrival, meter: Meter) -> None:
    """Written in large pieces, and what has come is written however this ends."""
    buffer, flushed = bytearray(), time.monotonic()
    try:
        async for chunk in chunks:
            buffer += chunk
            if file.size is not None and arrival.size + len(buffer) > file.size:
                raise ChecksumMismatch(f"{file.name}: more than the promised {file.size} bytes came")
            if len(buffer) >= CHUNK or time.monotonic() - flushed > FLUSH_SECONDS:
                data, buffer = buffer, bytearray()
                await in_thread(arrival.append, data)
                flushed = time.monotonic()
                meter.at(file.name, arrival.size)
    finally:
        if buffer:
            await in_thread(arrival.append, buffer)
            meter.at(file.name, arrival.size)


def _move(pending: Path, whole: Path) -> None:
    whole.parent.mkdir(parents=True, exist_ok=True)
    pending.replace(whole)
