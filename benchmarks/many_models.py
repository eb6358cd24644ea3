"""``benchmarks/residency.py``: twenty models, room for about six. What is it worth to choose who leaves?

Simulated in virtual time: engines and clients are a model of both; the fleet and its arbiter are the gateway's own.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.columns import aligned
from benchmarks.sleepers import LeastRecentlyUsed, Outcome, Policy, percentile, simulate
from benchmarks.visits import Demand, models, visits
from controller.residency.arbiter import Arbiter

POLICIES = (
    Policy("torpor", Arbiter),
    Policy("lru", LeastRecentlyUsed),
    Policy("idle 60 s", idle_timeout=60.0),
    Policy("idle 300 s", idle_timeout=300.0),
)
MODELS, GIB, DAYS = 20, 160.0, 5
COLUMNS = (
    "policy",
    "requests",
    "at once",
    "failed",
    "wakes",
    "in vain",
    "wait mean s",
    "p50",
    "p95",
    "p99",
    "awake p99",
)


def compare(
    demand: Demand,
    *,
    number: int = MODELS,
    gib: float = GIB,
    days: int = DAYS,
    seed: int = 1,
    policies: Iterable[Policy] = POLICIES,
) -> list[Outcome]:
    """Each policy before the same clients."""
    of = models(number)
    asked = [visits(demand, of, seed + day) for day in range(days)]
    return [simulate(policy, of, gib, asked) for policy in policies]


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [
        (
            one.policy,
            f"{one.requests}",
            f"{one.hit_rate:.1%}",
            f"{one.failed / max(1, one.requests):.1%}",
            f"{one.wakes}",
            f"{one.failed_wakes}",
            f"{one.mean:.2f}",
            *(f"{percentile(one.waits, percent):.2f}" for percent in (50, 95, 99)),
            f"{percentile(one.steady, 99):.2f}",
        )
        for one in outcomes
    ]
    return aligned([COLUMNS, *rows], 11, 12)


def figures(one: Outcome) -> dict[str, Any]:
    """Times in seconds."""
    return {
        "policy": one.policy,
        "requests": one.requests,
        "hit_rate": one.hit_rate,
        "failed": one.failed,
        "wakes": one.wakes,
        "failed_wakes": one.failed_wakes,
        "wait_mean": one.mean,
        **{f"wait_p{percent}": percentile(one.waits, percent) for percent in (50, 95, 99)},
        "awake_while_others_move": len(one.steady),
        "awake_while_others_move_wait_p99": percentile(one.steady, 99),
    }


def plot(outcomes: Sequence[Outcome], path: Path) -> None:
    """The wait of every request, from the shortest to the longest. Needs matplotlib, which Torpor does not."""
    pyplot = import_module("matplotlib.pyplot")

    _, axis = pyplot.subplots(figsize=(7, 4))
    for one in outcomes:
        waits = sorted(one.waits) + [float("nan")] * one.failed
        axis.plot([rank / len(waits) for rank in range(len(waits))], waits, label=one.policy)
    axis.set(xlabel="share of the requests", ylabel="wait (s)", xlim=(0.7, 1.0), yscale="symlog")
    axis.legend()
    pyplot.tight_layout()
    pyplot.savefig(path)


def options(words: Sequence[str] | None) -> argparse.Namespace:
    demand = Demand()
    parser = argparse.ArgumentParser(prog="residency.py", description=__doc__)
    add = parser.add_argument
    add("--models", type=int, default=MODELS, metavar="N", help="(%(default)s)")
    add("--gib", type=float, default=GIB, metavar="GIB", help="memory of the GPU they share (%(default)g)")
    add("--hours", type=float, default=demand.seconds / 3600, metavar="H", help="of each day (%(default)g)")
    add("--days", type=int, default=DAYS, metavar="N", help="each with visitors of its own (%(default)s)")
    add("--load", type=float, default=1.0, metavar="X", help="times as many visitors (%(default)g)")
    add("--skew", type=float, default=demand.skew, metavar="S", help="of the models' popularity, Zipf (%(default)g)")
    add("--seed", type=int, default=1, help="(%(default)s)")
    add("--json", type=Path, metavar="PATH", help="write all figures there, times in seconds")
    add("--plot", type=Path, metavar="PATH", help="draw all waits there, if matplotlib is installed")
    given = parser.parse_args(words)
    if given.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib, which is not installed")
    return given


def main(words: Sequence[str] | None = None) -> int:
    given = options(words)
    logging.getLogger("controller").addHandler(logging.NullHandler())  # or each wake that fails were told
    asked = Demand()
    demand = replace(asked, seconds=given.hours * 3600, visitors=asked.visitors * given.load, skew=given.skew)
    began = time.monotonic()
    outcomes = compare(demand, number=given.models, gib=given.gib, days=given.days, seed=given.seed)
    hours = given.days * given.hours
    print(table(outcomes))
    print(f"\n{given.models} models on {given.gib:g} GiB, {hours:g} hours in {time.monotonic() - began:.0f} s.")
    if given.json:
        settings = {"models": given.models, "gib": given.gib, "days": given.days, "seed": given.seed}
        found = {**settings, "demand": asdict(demand), "policies": [figures(one) for one in outcomes]}
        given.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    if given.plot:
        plot(outcomes, given.plot)
    return 0
