"""What a run comes to: one table, the comparison with the router, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.ledger import Row
from benchmarks.live import milliseconds
from benchmarks.measure import Tally, Wire
from benchmarks.settings import Load

COLUMNS = (
    *("model", "requests", "errors", "req/s", "in tok/s", "out tok/s"),
    *("latency p50", "p90", "p99", "TTFT p50", "p99", "ITL p50", "p99"),
)


@dataclass(slots=True)
class Run:
    """One model's. ``tally`` is None when the client left no result; ``rows`` when the server keeps no account."""

    model: str
    session: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    interrupted: bool = False
    tally: Tally | None = None
    wire: Wire = field(default_factory=Wire)
    rows: Sequence[Row] | None = None

    def take(self, result: Mapping[str, Any]) -> None:
        self.seconds = result["seconds"]
        self.cpu_seconds = result["cpu_seconds"]
        self.interrupted = result["interrupted"]
        self.tally = Tally.restore(result["tally"])
        self.wire = Wire.restore(result["wire"])

    @property
    def good(self) -> bool:
        return self.tally is not None and self.tally.finished > 0 and not self.tally.failed

    @property
    def counts_agree(self) -> bool | None:
        return None if self.rows is None else all(row.agrees for row in self.rows if row.is_count)

    @property
    def times_agree(self) -> bool | None:
        return None if self.rows is None else all(row.agrees for row in self.rows if not row.is_count)


def total(runs: Sequence[Run]) -> tuple[Tally, float]:
    """All clients' figures in one, and the longest time."""
    together = Tally()
    for run in runs:
        if run.tally is not None:
            together.merge(run.tally)
    return together, max((run.seconds for run in runs), default=0.0)


def show(console: Console, runs: Sequence[Run]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    for run in runs:
        if run.tally is None:
            table.add_row(run.model, "no result: the client died, look at its session or log")
        else:
            table.add_row(run.model, *_cells(run.tally, run.seconds))
    if len(runs) > 1:
        table.add_row("all", *_cells(*total(runs)), style="bold")
    console.print(table)
    say(console, "Times in milliseconds.")
    for run in runs:
        _errors(console, run)


def show_comparison(console: Console, runs: Sequence[Run]) -> None:
    """The client's figures beside the router's: timed from the writing of a request, warm-up included."""
    say(console)
    if all(run.rows is None for run in runs):
        say(console, "The server keeps no traffic statistics: nothing to compare with.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "", "client", "router", "difference"):
        table.add_column(name, justify="left" if name in ("model", "") else "right", no_wrap=True)
    for run in runs:
        for at, row in enumerate(run.rows or ()):
            style = "" if row.agrees else "red"
            table.add_row(run.model if at == 0 else "", row.of, *_sides(row), style=style)
    console.print(table)
    if any(run.rows is not None and not any(row.of == "latency p50" for row in run.rows) for run in runs):
        say(console, "Percentiles are not compared where the router had served requests before this run.")
    say(console, _verdict("Requests and tokens", [run.model for run in runs if run.counts_agree is False]))
    if any(row.of.startswith("latency") for run in runs for row in run.rows or ()):
        say(console, _verdict("Times (within 5 %)", [run.model for run in runs if run.times_agree is False]))


def _verdict(what: str, differing: Sequence[str]) -> str:
    if not differing:
        return f"{what}: client and router agree."
    return f"{what}: client and router DIFFER for {', '.join(differing)}. See docs/benchmarking.md."


def document(load: Load, base_url: str, config: str, runs: Sequence[Run]) -> dict[str, Any]:
    """Times in seconds."""
    together, seconds = total(runs)
    return {
        "config": config,
        "base_url": base_url,
        "load": {name: getattr(load, name) for name in Load.__slots__},
        "models": [_model(run) for run in runs],
        "total": figures(together, seconds),
    }


def figures(tally: Tally, seconds: float) -> dict[str, Any]:
    counts = {
        "finished": tally.finished,
        "successful": tally.successful,
        "failed": tally.failed,
        "abandoned": tally.abandoned,
        "prompt_tokens": tally.prompt_tokens,
        "completion_tokens": tally.completion_tokens,
        "chunks": tally.chunks,
    }
    rates = ("finished", "prompt_tokens", "completion_tokens", "chunks")
    return {
        "seconds": seconds,
        **counts,
        "errors": dict(tally.errors),
        "per_second": {name: counts[name] / seconds if seconds else 0.0 for name in rates},
        "latency": tally.latency.summary(),
        "ttft": tally.ttft.summary(),
        "itl": tally.itl.summary(),
        "lateness": tally.lateness.summary(),
    }


def say(console: Console, text: str = "") -> None:
    console.print(Text(text), soft_wrap=True)


def _model(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = {"model": run.model, "session": run.session, "interrupted": run.interrupted}
    tally = run.tally
    if tally is None:
        return {**found, "died": True}
    found |= figures(tally, run.seconds)
    found["client_cpu"] = {
        "seconds": run.cpu_seconds,
        "per_request": run.cpu_seconds / tally.finished if tally.finished else None,
        "per_chunk": run.cpu_seconds / tally.chunks if tally.chunks else None,
    }
    if run.rows is not None:
        rows = {row.of: {"client": row.client, "router": row.router, "agrees": row.agrees} for row in run.rows}
        found["router"] = {"counts_agree": run.counts_agree, "times_agree": run.times_agree, **rows}
    return found


def _cells(tally: Tally, seconds: float) -> list[str]:
    rates = (tally.finished, tally.prompt_tokens, tally.completion_tokens)
    times = [tally.latency.percentile(fraction) for fraction in (0.5, 0.9, 0.99)]
    times += [measured.percentile(fraction) for measured in (tally.ttft, tally.itl) for fraction in (0.5, 0.99)]
    return [
        str(tally.finished),
        str(tally.failed),
        *(f"{count / seconds:.1f}" if seconds else "-" for count in rates),
        *map(milliseconds, times),
    ]


def _errors(console: Console, run: Run) -> None:
    tally = run.tally
    if tally is None:
        return
    for what, count in tally.errors.most_common():
        say(console, f"{run.model}: {count} x {what}")
    if tally.abandoned:
        say(console, f"{run.model}: {tally.abandoned} requests were cut off by the end of the run")


def _sides(row: Row) -> tuple[str, str, str]:
    if row.is_count:
        return f"{row.client:.0f}", f"{row.router:.0f}", f"{row.difference:+.0f}" if row.difference else "0"
    return f"{milliseconds(row.client)} ms", f"{milliseconds(row.router)} ms", f"{row.difference:+.1%}"
