"""What one client shows while it works: a small live table on a terminal, else a line now and then."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from benchmarks.measure import FRACTIONS, Distribution, Tally

SCREEN_SECONDS = 1.0
"""Drawing takes some ten milliseconds of CPU, so it is done in a thread, and not more often than this."""

LINE_SECONDS = 5.0
WIDE = 240


class Watched(Protocol):
    tally: Tally
    in_flight: int

    @property
    def seconds(self) -> float: ...

    @property
    def began(self) -> float | None: ...

    @property
    def ended(self) -> float | None: ...


class View:
    """``live`` None means lines."""

    def __init__(self, client: Watched, name: str, load: str, console: Console, live: Live | None) -> None:
        self._name = name
        self._load = load
        self._client = client
        self._console = console
        self._live = live
        self._before = (time.perf_counter(), 0, 0)
        self._rates = (0.0, 0.0)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(SCREEN_SECONDS if self._live else LINE_SECONDS)
            self._measure_rates()
            if self._live is None:
                self._print()
            else:
                await asyncio.to_thread(self._live.update, self._picture(), refresh=True)

    def show(self) -> None:
        self._measure_rates()
        if self._live is None:
            self._print()
        else:
            self._live.update(self._picture(), refresh=True)

    def _print(self) -> None:
        self._console.print(Text(f"{self._name}: {line(self._client)}"), soft_wrap=True)

    def _measure_rates(self) -> None:
        tally, now = self._client.tally, time.perf_counter()
        time_before, finished, chunks = self._before
        passed = now - time_before
        if passed < SCREEN_SECONDS / 2:
            return
        self._rates = ((tally.finished - finished) / passed, (tally.chunks - chunks) / passed)
        self._before = (now, tally.finished, tally.chunks)

    def _picture(self) -> Group:
        client, tally = self._client, self._client.tally
        state = "warming up" if client.began is None else "done" if client.ended is not None else "running"
        seconds = client.seconds
        rates = Table("", "all", "per second", "last second", box=None, pad_edge=False)
        rates.add_row("requests", f"{tally.finished}", _rate(tally.finished, seconds), f"{self._rates[0]:.1f}")
        rates.add_row("prompt tokens", f"{tally.prompt_tokens}", _rate(tally.prompt_tokens, seconds))
        rates.add_row("answer tokens", f"{tally.completion_tokens}", _rate(tally.completion_tokens, seconds))
        rates.add_row("chunks", f"{tally.chunks}", _rate(tally.chunks, seconds), f"{self._rates[1]:.1f}")
        times = Table("milliseconds", "mean", *FRACTIONS, "max", box=None, pad_edge=False)
        for name, measured in (("latency", tally.latency), ("TTFT", tally.ttft), ("ITL", tally.itl)):
            times.add_row(name, *(milliseconds(value) for value in measured.summary().values()))
        for table in (rates, times):
            for column in table.columns[1:]:
                column.justify = "right"
        words = ", ".join(f"{count} x {what}" for what, count in tally.errors.most_common(5)) or "none"
        return Group(
            Text(self._name, style="bold"),
            Text(self._load),
            Text(f"{state}, {seconds:.0f} s, {client.in_flight} in flight"),
            Text(),
            rates,
            Text(),
            times,
            Text(),
            Text(f"errors: {words}", style="red" if tally.errors else ""),
        )


@contextmanager
def view(client: Watched, name: str, load: str, *, plain: bool) -> Iterator[View]:
    """Show ``client`` until the end, and once more then."""
    on_screen = sys.stdout.isatty() and not plain
    console = Console(width=None if on_screen else WIDE, highlight=False)
    if not on_screen:
        console.print(Text(f"{name}: {load}"), soft_wrap=True)
        shown = View(client, name, load, console, None)
        yield shown
        shown.show()
        return
    console.print()  # tmux moves all up by a line when the program has ended, to say so
    with Live(console=console, auto_refresh=False, transient=False) as live:
        shown = View(client, name, load, console, live)
        shown.show()
        yield shown
        shown.show()


def line(client: Watched) -> str:
    if client.began is None:
        return f"warming up, {client.in_flight} in flight"
    tally = client.tally
    words = [
        f"{client.seconds:.1f} s",
        f"{tally.finished} requests, {_rate(tally.finished, client.seconds)}/s",
        f"{_rate(tally.completion_tokens, client.seconds)} tokens/s",
        *(
            f"{name} p50 {milliseconds(measured.percentile(0.5))} p99 {milliseconds(measured.percentile(0.99))} ms"
            for name, measured in _present(tally)
        ),
        f"{tally.failed} errors",
    ]
    return ", ".join(words)


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f}" if seconds < 1 else f"{seconds * 1000:.0f}"


def _present(tally: Tally) -> list[tuple[str, Distribution]]:
    every = [("latency", tally.latency), ("TTFT", tally.ttft), ("ITL", tally.itl)]
    return [(name, measured) for name, measured in every if measured.count]


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:.1f}" if seconds else "-"
