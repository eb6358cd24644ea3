"""What the tests of downloads share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from runtime.downloads.listing import MARKER


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the marker."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != MARKER)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(file.name for file in folder.iterdir())


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.002)
