"""What is told while engines come up: to nobody, unless a kind of it in ``display`` is looked at.

By itself, because a gateway starts engines too, and would load a terminal's tables with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


class Progress:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begin(self, name: str, log: Path) -> None:
        """``name`` is about to be started, and will write to ``log``."""

    def tell(self, name: str, state: str, detail: str = "") -> None:
        """It has come so far."""

    def show(self, title: str, lines: Sequence[str]) -> None:
        """Somebody else's last words."""
