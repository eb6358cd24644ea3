"""A download that is not whole yet: a hidden folder beside the target, which survives a killed process.

.NAME.part/plan.json     of what source and revision it is, and how much that will be
.NAME.part/pending/      files under way, named by a digest
.NAME.part/files/        files that are whole and checked
.NAME.part/unpacked/     what came out of an archive

Everything here blocks: call it off the event loop.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.downloads.progress import Progress

SPARE_BYTES = 64 << 20
"""Left free on the disk, so that others can still write their logs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``key``: the source's identity, digested. Bytes and files are what all will come to."""

    key: str
    revision: str | None
    bytes: int | None
    files: int


class Part:
    def __init__(self, target: Path) -> None:
        self.root = target.with_name(f".{target.name}.part")
        self.files = self.root / "files"
        self.unpacked = self.root / "unpacked"
        self._pending = self.root / "pending"
        self._plan = self.root / "plan.json"

    def prepare(self, plan: Plan) -> None:
        """Keep what is there if it is of just this revision, which must be known; else begin with nothing."""
        if plan.revision is None or self.plan() != plan:
            self.discard()
        for folder in (self.files, self._pending):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.unpacked, ignore_errors=True)
        write_whole(self._plan, json.dumps(asdict(plan)))

    def plan(self) -> Plan | None:
        try:
            return Plan(**json.loads(self._plan.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def progress(self) -> Progress:
        """As far as can be told from outside, for who waits while another process writes."""
        plan = self.plan()
        whole = list(_sizes(self.files))
        done = sum(whole) + sum(_sizes(self._pending))
        if plan is None:
            return Progress(done, None, len(whole), None)
        return Progress(done, plan.bytes, len(whole), plan.files)

    def pending(self, name: str) -> Path:
        return self._pending / hashlib.sha256(name.encode()).hexdigest()[:32]

    def size(self) -> int:
        """Bytes that need no more room on the disk."""
        return sum(_sizes(self.files)) + sum(_sizes(self._pending))

    def discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root)


def write_whole(path: Path, text: str) -> None:
    """The old content or the new, never a piece: also when the machine stops."""
    beside = path.with_name(path.name + ".new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sizes(folder: Path) -> list[int]:
    found = []
    for at, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                found.append(Path(at, name).stat().st_size)
    return found
