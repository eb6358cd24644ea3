"""What is seen while engines come up: a live table on a terminal, else one line for each event."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller.launch.logs import tail
from controller.launch.progress import Progress

ENDED = frozenset({"ready", "asleep", "stopped", "not started", "failed", "started"})
PADDING = 2
COLOURS = {"ready": "green", "asleep": "green", "failed": "red", "starting": "yellow"}


class Lines(Progress):
    def __init__(self, console: Console) -> None:
        self._console = console

    def tell(self, name: str, state: str, detail: str = "") -> None:
        say(self._console, f"{name}: {state}" + (f", {detail}" if detail else ""))

    def show(self, title: str, lines: Sequence[str]) -> None:
        show(self._console, title, lines)


@dataclass(slots=True)
class _Row:
    log: Path
    since: float
    state: str = "waiting"
    detail: str = ""
    took: float | None = None


class LiveTable(Progress):
    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, _Row] = {}
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, name: str, log: Path) -> None:
        self._rows[name] = _Row(log, time.monotonic())

    def tell(self, name: str, state: str, detail: str = "") -> None:
        row = self._rows[name]
        if state != row.state and state not in ENDED:
            row.since = time.monotonic()
        row.state, row.detail = state, detail
        row.took = time.monotonic() - row.since if state in ENDED else None

    def show(self, title: str, lines: Sequence[str]) -> None:
        show(self._console, title, lines)

    def _render(self) -> RenderableType:
        table = Table(box=None, padding=(0, PADDING, 0, 0))
        for column in ("instance", "state", "seconds", ""):
            table.add_column(column, no_wrap=True)
        taken = max([8, *map(len, self._rows)]) + len("starting") + len("seconds") + 4 * PADDING
        room = max(self._console.width - taken, PADDING)
        for name, row in list(self._rows.items()):
            seconds = row.took if row.took is not None else time.monotonic() - row.since
            last = (tail(row.log, 1) or [""])[0] if row.state == "starting" else ""
            words = Text.from_ansi(last or row.detail)
            words.truncate(room, overflow="ellipsis")  # rich would cut the other columns, too
            state = Text(row.state, style=COLOURS.get(row.state, ""))
            table.add_row(Text(name), state, f"{seconds:.0f}", words)
        return table


def progress(console: Console) -> Progress:
    return LiveTable(console) if console.is_terminal else Lines(console)


def say(console: Console, text: str = "") -> None:
    """Text as it is: no markup, no colours of rich's own choice, no wrapping."""
    console.print(text, markup=False, highlight=False, soft_wrap=True, emoji=False)


def show(console: Console, title: str, lines: Sequence[str]) -> None:
    """Somebody else's last words, marked as such."""
    say(console, title)
    for line in lines:
        console.print(Text("  | ") + Text.from_ansi(line), soft_wrap=True)
