"""How far a download is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """None: not known, or not yet. After a restart ``done_bytes`` begins with what was there already."""

    done_bytes: int
    total_bytes: int | None
    done_files: int
    total_files: int | None


OnProgress = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Nobody looks."""


class Meter:
    """Counts for the files under way, and tells whoever looks."""

    def __init__(self, on_progress: OnProgress, total_bytes: int | None, total_files: int) -> None:
        self._tell = on_progress
        self._total_bytes = total_bytes
        self._total_files = total_files
        self._at: dict[str, int] = {}
        self._done = 0
        self._files = 0
        self._report()

    def at(self, name: str, size: int) -> None:
        """So much of this file is there: less than before when bytes turned out to be of no use."""
        self._done += size - self._at.get(name, 0)
        self._at[name] = size
        self._report()

    def file_done(self) -> None:
        self._files += 1
        self._report()

    def _report(self) -> None:
        self._tell(Progress(self._done, self._total_bytes, self._files, self._total_files))
