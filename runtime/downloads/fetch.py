"""From a source to a folder that is whole: one writer, resumed, checked, and renamed into place at the very end.

Beside the target ``DIR/NAME`` stand, while it is at work, ``DIR/.NAME.lock``, ``DIR/.NAME.part`` (``part.py``) and for
a moment ``DIR/.NAME.old``. The target itself is the old folder or the new one, never a mixture, and never half.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from runtime.downloads import marker as markers
from runtime.downloads.archive import is_archive, unpack
from runtime.downloads.credentials import Credentials
from runtime.downloads.errors import DownloadError, NoSpace, NotFound, SourceChanged, TargetUnusable
from runtime.downloads.listing import Listing, Origin
from runtime.downloads.lock import only_writer
from runtime.downloads.marker import Entry, Marker
from runtime.downloads.origins import open_origin
from runtime.downloads.part import SPARE_BYTES, Part, Plan, sync_folder
from runtime.downloads.progress import Meter, OnProgress, Progress, ignore
from runtime.downloads.source import HubSource, LocalSource, Source, parse
from runtime.downloads.threads import in_stoppable_thread, in_thread
from runtime.downloads.transfer import transfer

__all__ = ["Artifact", "Progress", "corruption", "fetch", "ignore"]

log = logging.getLogger(__name__)

CHANGES = 3
"""How often a source may change while it is read before that is an error."""


BY_CONTENT = "content:"
"""What the revision begins with where the source tells none."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """``path`` is whole and has its marker. ``revision``: a commit, an etag or a digest of the source's listing."""

    path: Path
    source: str
    revision: str | None
    files: int
    bytes: int


async def fetch(
    source: str,
    target: Path,
    credentials: Credentials = Credentials(),
    *,
    max_workers: int = 8,
    on_progress: OnProgress = ignore,
    revision: str | None = None,
    keep_part: bool = False,
) -> Artifact:
    """Make ``target`` a folder with what ``source`` holds now; nothing is fetched when it is just that already.

    Waits, without a deadline, while somebody else fetches to the same target; the progress told is then theirs. When
    cancelled, the target is as it was and, unless ``keep_part``, nothing of the download is left. Killed or failed, it
    goes on where it was when called again. Raises ``DownloadError``; where a ``revision`` is given and the source is at
    another, ``SourceChanged``.
    """
    parsed = parse(source)
    target = await in_thread(_resolved, target, parsed)
    part = Part(target)

    async def look() -> None:
        on_progress(await in_thread(part.progress))

    try:
        await in_thread(target.parent.mkdir, parents=True, exist_ok=True)
        async with only_writer(target.with_name(f".{target.name}.lock"), look):
            try:
                fetching = _Fetch(parsed, target, part, revision, max(1, max_workers), on_progress)
                async with open_origin(parsed, credentials) as origin:
                    return await fetching.run(origin)
            except asyncio.CancelledError:
                if not keep_part:
                    await in_thread(part.discard)
                raise
    except OSError as error:
        raise _disk_error(target, error) from error


async def corruption(target: Path) -> str | None:
    """The full check, which reads every byte: None when all is as it came, else the first thing that is not."""
    marker = await in_thread(markers.read, target)
    if marker is None:
        return "it has no completion marker"
    return await in_stoppable_thread(lambda go_on: markers.corruption(target, marker, go_on))


class _Fetch:
    """One call, once it is the only writer."""

    def __init__(
        self,
        source: Source,
        target: Path,
        part: Part,
        revision: str | None,
        max_workers: int,
        on_progress: OnProgress,
    ) -> None:
        self._source = source
        self._key = hashlib.sha256(source.identity.encode()).hexdigest()[:32]
        self._target = target
        self._part = part
        self._revision = revision
        self._max_workers = max_workers
        self._on_progress = on_progress

    async def run(self, origin: Origin) -> Artifact:
        await in_thread(_recover, self._target, self._part)
        changes = 0
        while True:
            try:
                return await self._once(origin)
            except SourceChanged:
                changes += 1
                if changes == CHANGES:
                    raise
                log.info("%s changed meanwhile; from the start", self._source.shown)

    async def _once(self, origin: Origin) -> Artifact:
        listing = await origin.listing()
        if not listing.files:
            raise NotFound(f"{self._source.shown} holds no files")
        if self._revision not in (None, listing.revision):
            raise SourceChanged(f"{self._source.shown} is at {listing.revision}, no longer at {self._revision}")
        if marker := await in_thread(_standing, self._target, self._key, listing.revision):
            await in_thread(self._part.discard)
            self._on_progress(Progress(marker.bytes, marker.bytes, len(marker.files), len(marker.files)))
            return self._artifact(marker)
        plan = Plan(self._key, listing.revision, listing.bytes, len(listing.files))
        await in_thread(self._part.prepare, plan)
        await in_thread(_check_space, self._part, listing.bytes)
        entries, content = await self._transfer_all(origin, listing), self._part.files
        if archive := self._archive(listing):
            content = self._part.unpacked
            entries = await in_stoppable_thread(lambda go_on: unpack(archive, content, go_on))
        marker = Marker(self._source.shown, self._key, listing.revision or _digest(entries), entries)
        await in_thread(_publish, self._target, self._part, content, marker)
        return self._artifact(marker)

    async def _transfer_all(self, origin: Origin, listing: Listing) -> dict[str, Entry]:
        """Largest first: the last one to end is then a small one."""
        meter = Meter(self._on_progress, listing.bytes, len(listing.files))
        waiting = iter(sorted(listing.files, key=lambda file: -(file.size or 0)))
        entries: dict[str, Entry] = {}

        async def work() -> None:
            for file in waiting:
                entries[file.name] = await transfer(origin, file, self._part, meter)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._max_workers, len(listing.files))):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            raise _worst(failed) from failed
        return dict(sorted(entries.items()))

    def _archive(self, listing: Listing) -> Path | None:
        """Where the source itself is an archive, that one. One among other files stays what it is."""
        name = listing.files[0].name
        alone = len(listing.files) == 1 and not isinstance(self._source, HubSource)
        return self._part.files / name if alone and is_archive(self._source.shown) and is_archive(name) else None

    def _artifact(self, marker: Marker) -> Artifact:
        return Artifact(self._target, marker.source, marker.revision, len(marker.files), marker.bytes)


def _worst(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of several failures at once, one that nobody foresaw, else the first."""
    errors = failed.exceptions
    return next((error for error in errors if not isinstance(error, DownloadError)), errors[0])


def _digest(entries: dict[str, Entry]) -> str:
    lines = "\n".join(f"{name} {entry.size} {entry.sha256}" for name, entry in sorted(entries.items()))
    return BY_CONTENT + hashlib.sha256(lines.encode()).hexdigest()[:32]


def _resolved(target: Path, source: Source) -> Path:
    if target.name in ("", "..") or len(target.name.encode()) > 240:
        raise TargetUnusable(f"{target} cannot be a target: it has no name, or one that is too long")
    target = target.parent.resolve() / target.name
    if isinstance(source, LocalSource):
        origin = source.path.resolve()
        if target == origin or origin in target.parents or target in origin.parents:
            raise TargetUnusable(f"the source {origin} and the target {target} are within each other")
    return target


def _check_ours(target: Path) -> None:
    """Raises ``TargetUnusable`` when replacing what is at the target would lose what somebody else put there."""
    foreign = target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir())))
    if foreign and markers.read(target) is None:
        raise TargetUnusable(f"{target} holds something that was not downloaded by this program; it is left alone")


def _standing(target: Path, key: str, revision: str | None) -> Marker | None:
    """The marker of a target that is just what is wanted."""
    marker = markers.read(target)
    if marker is None or marker.key != key or revision is None or marker.revision != revision:
        return None
    if found := markers.damage(target, marker):
        log.warning("%s is damaged (%s); it is fetched again", target, found)
        return None
    return marker


def _check_space(part: Part, wanted: int | None) -> None:
    if wanted is None:
        return
    missing, free = max(0, wanted - part.size()), shutil.disk_usage(part.root).free
    if missing and missing + SPARE_BYTES > free:
        raise NoSpace(f"{part.root.parent}: {missing} bytes are still to come, {free} are free")


def _publish(target: Path, part: Part, content: Path, marker: Marker) -> None:
    markers.write(content, marker)
    _put_in_place(target, content)
    part.discard()


def _put_in_place(target: Path, content: Path) -> None:
    """Whoever has files of the old folder open keeps them."""
    _check_ours(target)
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        target.replace(old)
    content.replace(target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _recover(target: Path, part: Part) -> None:
    """Finish what a process that was killed had all but done."""
    _check_ours(target)
    for content in (part.unpacked, part.files):
        if markers.read(content) is not None:
            _put_in_place(target, content)
            part.discard()
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        old.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def _disk_error(target: Path, error: OSError) -> DownloadError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{target}: the disk is full")
    return TargetUnusable(f"{target} cannot be written: {error.strerror or error}")
