"""``python benchmarks/prefix_cache.py``: what each balancing policy is worth where replicas have a prefix cache.

Simulated: engines and clients are a model of both, in virtual time; the policies are the router's own.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.cached_replicas import Machine, Outcome, Race
from benchmarks.columns import aligned
from benchmarks.conversations import Workload, arrivals
from router.balancing import POLICIES, Policy, PowerOfTwo, Random

WORKLOADS = (
    Workload("conversations", 4.0, 40, (512, 4096)),
    Workload("one prompt for all", 22.0, 1, (4096, 4096), turns=1.0),
    Workload("nothing shared", 3.0, 0, (512, 4096), turns=1.0),
)
REPLICAS, SECONDS = 8, 300.0
COLUMNS = ("policy", "requests", "cached", "TTFT p50 ms", "p99", "busiest")


def compare(
    workload: Workload,
    machine: Machine,
    *,
    replicas: int = REPLICAS,
    seconds: float = SECONDS,
    seed: int = 1,
    policies: Iterable[str] = POLICIES,
) -> list[Outcome]:
    """Each policy before the same clients. The first fifth of the time only fills the caches."""
    found = []
    for name in policies:
        race = Race(name, policy_of(name, seed), machine, replicas, seconds / 5)
        found.append(race.run(arrivals(workload, seed, seconds)))
    return found


def policy_of(name: str, seed: int) -> Policy:
    chance = random.Random(seed)
    seeded: dict[str, Policy] = {"random": Random(chance), "power_of_two": PowerOfTwo(chance)}
    return seeded.get(name) or POLICIES[name]()


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [
        (
            one.policy,
            f"{len(one.ttft)}",
            f"{one.hit_rate:.1%}",
            f"{one.percentile(50) * 1000:.0f}",
            f"{one.percentile(99) * 1000:.0f}",
            f"{one.imbalance:.2f} x",
        )
        for one in outcomes
    ]
    return aligned([COLUMNS, *rows], 16, 13, margin="  ")


def figures(one: Outcome) -> dict[str, Any]:
    """Times in seconds."""
    return {
        "policy": one.policy,
        "requests": len(one.ttft),
        "hit_rate": one.hit_rate,
        "ttft_p50": one.percentile(50),
        "ttft_p99": one.percentile(99),
        "imbalance": one.imbalance,
    }


def plot(runs: Sequence[tuple[Workload, Sequence[Outcome]]], path: Path) -> None:
    """TTFT of every request, from the quickest to the slowest. Needs matplotlib, which Torpor does not."""
    pyplot = import_module("matplotlib.pyplot")

    _, axes = pyplot.subplots(1, len(runs), figsize=(5 * len(runs), 4), squeeze=False)
    for axis, (workload, outcomes) in zip(axes[0], runs, strict=True):
        for one in outcomes:
            axis.plot([rank / len(one.ttft) for rank in range(len(one.ttft))], sorted(one.ttft), label=one.policy)
        axis.set(title=workload.name, xlabel="share of the requests", ylabel="TTFT (s)", yscale="log")
        axis.legend()
    pyplot.tight_layout()
    pyplot.savefig(path)


def options(words: Sequence[str] | None) -> argparse.Namespace:
    machine = Machine()
    parser = argparse.ArgumentParser(prog="prefix_cache.py", description=__doc__)
    add = parser.add_argument
    add("--workload", choices=[one.name for one in WORKLOADS], action="append", help="just this one; repeatable")
    add("--replicas", type=int, default=REPLICAS, metavar="N", help="(%(default)s)")
    add("--seconds", type=float, default=SECONDS, metavar="S", help="of virtual time (%(default)g)")
    add("--load", type=float, default=1.0, metavar="X", help="times as many conversations (1)")
    add("--cache", type=int, default=machine.cache, metavar="TOKENS", help="of each replica (%(default)s)")
    add("--prefill", type=float, default=machine.prefill, metavar="TOKENS", help="a second (%(default)g)")
    add("--seed", type=int, default=1, help="(%(default)s)")
    add("--json", type=Path, metavar="PATH", help="write all figures there, times in seconds")
    add("--plot", type=Path, metavar="PATH", help="draw TTFT there, if matplotlib is installed")
    given = parser.parse_args(words)
    if given.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib, which is not installed")
    return given


def main(words: Sequence[str] | None = None) -> int:
    given = options(words)
    machine = replace(Machine(), cache=given.cache, prefill=given.prefill)
    began, runs = time.monotonic(), []
    for workload in WORKLOADS:
        if given.workload and workload.name not in given.workload:
            continue
        asked = replace(workload, conversations_per_second=workload.conversations_per_second * given.load)
        outcomes = compare(asked, machine, replicas=given.replicas, seconds=given.seconds, seed=given.seed)
        runs.append((asked, outcomes))
        print(f"{workload.name}\n{table(outcomes)}\n", flush=True)
    print(f"{given.replicas} replicas, {given.seconds:g} s simulated in {time.monotonic() - began:.0f} s.")
    if given.json:
        found = [
            {"workload": asdict(asked), "policies": [figures(one) for one in outcomes]} for asked, outcomes in runs
        ]
        settings = {"replicas": given.replicas, "seconds": given.seconds, "seed": given.seed}
        given.json.write_text(json.dumps(settings | {"machine": asdict(machine), "runs": found}, indent=2))
    if given.plot:
        plot(runs, given.plot)
    return 0
