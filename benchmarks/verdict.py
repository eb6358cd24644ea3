"""From the rounds of ``overhead`` to its table: medians, ratios to nginx, and whether the targets are met. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from benchmarks.cpu import Instructions

OURS, YARDSTICK = "torpor", "nginx"
MOST_PER_CHUNK, MOST_PER_REQUEST, MOST_TTFT = 1.5, 3.5, 2.0
"""Times nginx."""

MOST_STREAM_BYTES = 25_000
MOST_GROWTH = 1.10
"""What counts as flat: the issue gives no figure, and a shared machine is not steadier than this."""


@dataclass(frozen=True, slots=True)
class Round:
    """One gateway under one load for a while. ``units``: requests or chunks; seconds; CPU in seconds."""

    units: int
    seconds: float
    cpu: float
    errors: int = 0
    latency_p50: float | None = None
    ttft_p50: float | None = None
    ttft_p99: float | None = None
    counted_units: int = 0
    counted_seconds: float = 0.0
    instructions: Instructions | None = None
    """In a time of their own."""

    @property
    def rate(self) -> float:
        return self.units / self.seconds if self.seconds else 0.0

    @property
    def cpu_each(self) -> float:
        """CPU seconds a unit."""
        return self.cpu / max(1, self.units)

    @property
    def instructions_each(self) -> float | None:
        return None if self.instructions is None else self.instructions.total / max(1, self.counted_units)


@dataclass(frozen=True, slots=True)
class Target:
    """``figure`` must be at most ``most``. None: it was not measured."""

    name: str
    figure: float | None
    most: float
    unit: str

    @property
    def met(self) -> bool | None:
        return None if self.figure is None else self.figure <= self.most

    def line(self) -> str:
        said = {None: "not measured", True: "met", False: "MISSED"}[self.met]
        figure = "-" if self.figure is None else f"{self.figure:.2f}"
        return f"  {self.name:<52} {figure:>7} {self.unit:<8} at most {self.most:<5g} {said}"


def middle(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def ratio(ours: Sequence[float | None], theirs: Sequence[float | None]) -> float | None:
    """The median over the rounds of one through the other: the two halves of a round saw the same noise."""
    pairs = zip(ours, theirs, strict=False)
    return middle(one / other for one, other in pairs if one is not None and other)


def summary(rounds: Sequence[Round], yardstick: Sequence[Round] = ()) -> dict[str, Any]:
    """Of one gateway and one load. Times in seconds; ``spread``: least and most CPU of a round."""
    each = [one.cpu_each for one in rounds]
    known = [one.instructions.per(one.counted_units) for one in rounds if one.instructions is not None]
    return {
        "rate": middle(one.rate for one in rounds),
        "cpu": middle(each),
        "cpu_spread": [min(each), max(each)] if each else None,
        "cpu_ratio": ratio(each, [one.cpu_each for one in yardstick]),
        "latency_p50": middle(one.latency_p50 for one in rounds),
        "ttft_p50": middle(one.ttft_p50 for one in rounds),
        "ttft_p99": middle(one.ttft_p99 for one in rounds),
        "ttft_ratio": ratio([one.ttft_p50 for one in rounds], [one.ttft_p50 for one in yardstick]),
        "instructions_user": middle(one.user for one in known),
        "instructions_kernel": middle(one.kernel for one in known),
        "instructions_ratio": ratio(_instructions(rounds), _instructions(yardstick)),
        "errors": sum(one.errors for one in rounds),
    }


def _instructions(rounds: Iterable[Round]) -> list[float | None]:
    return [one.instructions_each for one in rounds]


def without(rounds: Sequence[Round], idle: Sequence[Round]) -> list[Round]:
    """``rounds`` less what the same gateway used in as long a time without requests."""
    found = []
    for one, rest in zip(rounds, idle, strict=True):
        used = max(0.0, one.cpu - rest.cpu * one.seconds / rest.seconds)
        counted = one.instructions
        if counted is not None and rest.instructions is not None:
            counted = counted.less(rest.instructions, one.counted_seconds / rest.counted_seconds)
        found.append(replace(one, cpu=used, instructions=counted))
    return found


def growth(base: Sequence[Round], grown: Sequence[Round]) -> dict[str, float | None]:
    """How much more a request costs."""
    plain, more = [one.cpu_each for one in base], [one.cpu_each for one in grown]
    return {
        "cpu": middle(more),
        "ratio": ratio(more, plain),
        "instructions_ratio": ratio(_instructions(grown), _instructions(base)),
    }


def targets(results: Mapping[str, Any]) -> list[Target]:
    """The issue's, each with what was found."""

    def found(*keys: str) -> float | None:
        value: Any = results
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value if isinstance(value, float | int) else None

    def grown(what: str) -> float | None:
        """In instructions, if they were counted: they do not depend on who else uses the machine."""
        counted = found("flat", what, "instructions_ratio")
        return found("flat", what, "ratio") if counted is None else counted

    memory = found("memory", OURS, "bytes_per_stream")
    return [
        Target("CPU per streamed chunk", found("streams", OURS, "cpu_ratio"), MOST_PER_CHUNK, "x nginx"),
        Target("CPU per request", found("requests", OURS, "cpu_ratio"), MOST_PER_REQUEST, "x nginx"),
        Target("TTFT p50 of the streams", found("streams", OURS, "ttft_ratio"), MOST_TTFT, "x nginx"),
        Target("memory per open idle stream", memory and memory / 1000, MOST_STREAM_BYTES / 1000, "kB"),
        Target("cost of a request, many models through one", grown("models"), MOST_GROWTH, "x"),
        Target("cost of a request, many replicas through one", grown("replicas"), MOST_GROWTH, "x"),
    ]


# -- for people ------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, figures to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def show(value: float | None, scale: float = 1.0, digits: int = 1) -> str:
    return "-" if value is None else f"{value * scale:,.{digits}f}"


def load_table(found: Mapping[str, Mapping[str, Any]], unit: str) -> str:
    """``found``: the summary of each gateway."""
    streamed = unit == "chunk"
    times = ["TTFT p50 ms", "p99", "x nginx"] if streamed else ["latency p50 ms"]
    rows = [["", f"{unit}s/s", f"CPU us/{unit}", "least-most", "x nginx", *times, "instr. user", "kernel", "x nginx"]]
    for name, one in found.items():
        spread = one["cpu_spread"]
        ends = "-" if spread is None else f"{show(spread[0], 1e6)}-{show(spread[1], 1e6)}"
        shown = (
            [show(one["ttft_p50"], 1e3, 2), show(one["ttft_p99"], 1e3, 2), show(one["ttft_ratio"], 1, 2)]
            if streamed
            else [show(one["latency_p50"], 1e3, 2)]
        )
        instructions = [show(one["instructions_user"], 1, 0), show(one["instructions_kernel"], 1, 0)]
        cpu = [show(one["rate"], 1, 0), show(one["cpu"], 1e6), ends, show(one["cpu_ratio"], 1, 2)]
        rows.append([name, *cpu, *shown, *instructions, show(one["instructions_ratio"], 1, 2)])
    return table(rows)


def flat_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [["", "CPU us/request", "x one", "instr. x one", "CPU % without requests", "x one with that"]]
    for one in found.values():
        ratios = [show(one[key], 1, 2) for key in ("ratio", "instructions_ratio")]
        rest = [show(one["idle"], 100), show(one["ratio_with_idle"], 1, 2)]
        rows.append([one["what"], show(one["cpu"], 1e6), *ratios, *rest])
    return table(rows)


def memory_line(name: str, one: Mapping[str, Any]) -> str:
    each = show(one["bytes_per_stream"], 1e-3)
    return f"  {name:<8} {each} kB each at {one['streams']} ({show(one['before'], 1e-6)} MB before)"


def as_json(targets: Sequence[Target]) -> list[dict[str, Any]]:
    return [{**asdict(target), "met": target.met} for target in targets]
