"""Log files of sessions: one for the present run, one (``.log.1``) for the run before. Blocks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TAIL_LINES = 20
TAIL_BYTES = 256 << 10
CHUNK_BYTES = 64 << 10


def rotate(log: Path) -> None:
    """Put the log of the last run aside and begin a new one that only this user can read."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))


def tail(log: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines, without the terminal's line ends; none when there is no log."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    # a progress bar draws over itself: what stands at the end is what is seen
    found = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    while found and not found[-1].strip():
        found.pop()
    return found[-lines:]


def read(log: Path, follow: bool, going_on: Callable[[], bool] = lambda: True) -> Iterator[str]:
    """The whole log, piece by piece; with ``follow`` what is added too, through rotations, while ``going_on()``."""
    while follow and not log.exists() and going_on():
        time.sleep(0.2)
    stream = log.open("rb")
    try:
        while True:
            if piece := stream.read(CHUNK_BYTES):
                yield piece.decode(errors="replace").replace("\r\n", "\n")
                continue
            if not follow or not going_on():
                return
            if log.exists() and not os.path.samestat(log.stat(), os.fstat(stream.fileno())):
                stream.close()
                stream = log.open("rb")  # it was started again
                continue
            time.sleep(0.1)
    finally:
        stream.close()
