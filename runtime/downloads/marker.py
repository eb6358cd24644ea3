"""The completion marker: a folder that has one is whole. It tells the source, the revision and each file's checksum.

Everything here blocks: call it off the event loop.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.downloads.errors import SourceInvalid
from runtime.downloads.listing import MARKER, name_parts
from runtime.downloads.part import sync_folder, write_whole

VERSION = 1
CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Marker:
    """``source`` as it may be shown; ``key``: its identity, digested."""

    source: str
    key: str
    revision: str | None
    files: Mapping[str, Entry]

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.files.values())


def write(folder: Path, marker: Marker) -> None:
    write_whole(folder / MARKER, json.dumps({"version": VERSION} | asdict(marker), indent=1))
    sync_folder(folder)


def read(folder: Path) -> Marker | None:
    """None when there is none, or none that this version understands."""
    try:
        text = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if text.pop("version") != VERSION:
            return None
        files = {name: Entry(int(entry["size"]), str(entry["sha256"])) for name, entry in text.pop("files").items()}
        for name in files:
            name_parts(name)
        return Marker(files=files, **text)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SourceInvalid):
        return None


def damage(folder: Path, marker: Marker) -> str | None:
    """What is not as the marker says, by names and sizes: the first file that is missing or of another size."""
    for name, entry in marker.files.items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if size != entry.size:
            return f"{name} has {size} bytes, not {entry.size}"
    return None


def corruption(folder: Path, marker: Marker, go_on: Callable[[], None]) -> str | None:
    """As ``damage``, but every byte is read."""
    if found := damage(folder, marker):
        return found
    for name, entry in marker.files.items():
        digest = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while chunk := file.read(CHUNK):
                go_on()
                digest.update(chunk)
        if digest.hexdigest() != entry.sha256:
            return f"{name} does not have the checksum it came with"
    return None
