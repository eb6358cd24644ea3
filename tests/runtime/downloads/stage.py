"""What the tests of downloads share."""

from __future__ import annotations

from pathlib import Path

from runtime.downloads.listing import MARKER


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the marker."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != MARKER)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(file.name for file in folder.iterdir())
