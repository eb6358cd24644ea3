"""What ``overhead`` does: start engine and gateways, put load on them in turn, print what the hop costs."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import verdict
from benchmarks.cpu import ATTACH_SECONDS, Counter, can_count, cpu_seconds, resident_bytes
from benchmarks.flood import Seen, flood, hold, request
from benchmarks.gateways import KINDS, PEERS, CannotStart, Fleet, Running, launch, start, stop
from benchmarks.verdict import OURS, YARDSTICK, Round

MODEL = "bench"
SPARE_FILES = 300
WARM_STREAMS = 20
ENGINE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """``seconds`` of one load on one gateway; ``warm`` and ``counted`` seconds before it and of counting after it.

    ``cycle_seconds``: how long it is watched without requests, and counted when it has many engines. It looks at each
    of them every five seconds or less often, so anything shorter would see all of that or nothing.
    """

    rounds: int = 3
    seconds: float = 5.0
    warm: float = 1.0
    counted: float = 1.5
    cycle_seconds: float = 5.0
    settle_seconds: float = 1.0
    connections: int = 32
    streams: int = 128
    tokens: int = 100
    idle_streams: int = 5000
    models: int = 1000
    replicas: int = 50


QUICK = Plan(1, 0.4, 0.1, 0.2, 0.5, 0.2, 32, 32, 20, 100, 50, 10)


class Bench:
    """What all measurements need. ``core``: the gateways'; None when they cannot have one of their own."""

    def __init__(self, plan: Plan, folder: Path, core: int | None, engines: Sequence[int], counting: bool) -> None:
        self.plan = plan
        self.engines = engines
        self._folder = folder
        self._core = core
        self._started = 0
        self._counter = Counter(folder / "perf.txt") if counting else None

    @contextmanager
    def running(self, name: str, fleet: Fleet) -> Iterator[Running]:
        """Raises ``CannotStart``."""
        self._started += 1
        gateway = start(KINDS[name], self._folder / f"{self._started}-{name}", fleet, self._core)
        try:
            yield gateway
        finally:
            stop(gateway.process)

    def measure(
        self,
        gateway: Running,
        asked: Sequence[bytes],
        connections: int,
        tokens: int | None,
        counting: float | None = None,
    ) -> Round:
        def load(seconds: float) -> Seen:
            return uvloop.run(flood(gateway.port, asked, connections, tokens, seconds))

        root, plan = gateway.process.pid, self.plan
        load(plan.warm)
        before = cpu_seconds(root)
        seen = load(plan.seconds)
        used = cpu_seconds(root) - before
        instructions, counted = None, Seen()
        if self._counter is not None:  # apart, because counting costs time
            self._counter.start(root)
            counted = load(counting or plan.counted)
            instructions = self._counter.stop()
        for problem, number in seen.errors.items():
            note(f"{gateway.name}: {number} x {problem}")
        return Round(
            units=seen.units,
            seconds=seen.seconds,
            cpu=used,
            errors=seen.errors.total(),
            latency_p50=seen.latency.percentile(0.5),
            ttft_p50=seen.ttft.percentile(0.5),
            ttft_p99=seen.ttft.percentile(0.99),
            counted_units=counted.units,
            counted_seconds=counted.seconds + ATTACH_SECONDS,
            instructions=instructions,
        )

    def rest(self, gateway: Running) -> Round:
        """What it does without requests, when it has been up for a while: it keeps looking at its engines."""
        root, seconds = gateway.process.pid, self.plan.cycle_seconds
        time.sleep(self.plan.settle_seconds)
        if self._counter is not None:
            self._counter.start(root)
        before = cpu_seconds(root)
        time.sleep(seconds)
        used = cpu_seconds(root) - before
        instructions = self._counter.stop() if self._counter is not None else None
        spent = seconds + ATTACH_SECONDS
        return Round(0, seconds, used, counted_seconds=spent, instructions=instructions)


# -- what is measured ------------------------------------------------------------------------------------------------


def hops(bench: Bench, names: Sequence[str]) -> dict[str, Any]:
    """Requests and streams through each gateway, round after round."""
    plan, fleet = bench.plan, {MODEL: bench.engines[:2]}
    loads: Mapping[str, tuple[list[bytes], int, int | None]] = {
        "requests": ([request(MODEL)], plan.connections, None),
        "streams": ([request(MODEL, stream=True, max_tokens=plan.tokens)], plan.streams, plan.tokens),
    }
    found: dict[str, dict[str, list[Round]]] = {load: {} for load in loads}
    with ExitStack() as stack:
        gateways = []
        for name in names:
            try:
                gateways.append(stack.enter_context(bench.running(name, fleet)))
            except CannotStart as problem:
                if name == OURS:
                    raise
                note(f"skipped: {problem}")
        for turn in range(plan.rounds):
            for load, (asked, connections, tokens) in loads.items():
                for gateway in gateways:
                    note(f"round {turn + 1} of {plan.rounds}: {load} through {gateway.name}")
                    rounds = found[load].setdefault(gateway.name, [])
                    rounds.append(bench.measure(gateway, asked, connections, tokens))
    return {
        load: {
            name: {
                **verdict.summary(rounds, by_name.get(YARDSTICK, ())),
                "rounds": [asdict(one) for one in rounds],
            }
            for name, rounds in by_name.items()
        }
        for load, by_name in found.items()
    }


def memory(bench: Bench, names: Sequence[str], streams: int) -> dict[str, Any]:
    """What an open stream costs on which nothing comes. In gateways of its own: memory once used is not given back."""
    found = {}
    for name in names:
        note(f"{streams} idle streams through {name}")
        try:
            with bench.running(name, {MODEL: bench.engines[:2]}) as gateway:
                found[name] = uvloop.run(_idle_streams(gateway, streams, bench.plan.settle_seconds))
        except (CannotStart, OSError, TimeoutError) as problem:
            note(f"{name} does not hold {streams} streams: {problem or 'no answer in time'}")
    return found


async def _idle_streams(gateway: Running, streams: int, settle_seconds: float) -> dict[str, Any]:
    asked, root = request(MODEL, stream=True, hold=True), gateway.process.pid
    for holder in await hold(gateway.port, asked, WARM_STREAMS):
        holder.transport.abort()
    await asyncio.sleep(settle_seconds)
    before = resident_bytes(root)
    holders = await hold(gateway.port, asked, streams)
    await asyncio.sleep(settle_seconds)
    after = resident_bytes(root)
    lost = sum(holder.transport.is_closing() for holder in holders)
    for holder in holders:
        holder.transport.abort()
    if lost:
        raise OSError(f"{lost} of the streams ended by themselves")
    return {"streams": streams, "before": before, "after": after, "bytes_per_stream": (after - before) / streams}


def flatness(bench: Bench) -> dict[str, Any]:
    """A request through a gateway with one model and one engine, with many models, and with many replicas."""
    plan, ports = bench.plan, bench.engines
    many = {f"{MODEL}-{number}": [port] for number, port in enumerate(ports[: plan.models])}
    fleets: Mapping[str, Fleet] = {
        "one": {MODEL: ports[:1]},
        "models": many,
        "replicas": {MODEL: ports[: plan.replicas]},
    }
    step = max(1, len(many) // plan.connections)
    asked = {name: [request(MODEL)] for name in fleets} | {"models": [request(name) for name in list(many)[::step]]}
    rounds: dict[str, list[Round]] = {name: [] for name in fleets}
    idle: dict[str, list[Round]] = {name: [] for name in fleets}
    for turn in range(plan.rounds):
        for name, fleet in fleets.items():
            note(f"round {turn + 1} of {plan.rounds}: requests, configured: {name}")
            with bench.running(OURS, fleet) as gateway:  # alone: one with many models is busy without requests, too
                idle[name].append(bench.rest(gateway))
                rounds[name].append(bench.measure(gateway, asked[name], plan.connections, None, plan.cycle_seconds))
    what = {
        "one": "1 model, 1 replica",
        "models": f"{plan.models} models",
        "replicas": f"{plan.replicas} replicas",
    }
    base = verdict.without(rounds["one"], idle["one"])
    return {
        name: {
            "what": what[name],
            **verdict.growth(base, verdict.without(rounds[name], idle[name])),
            "ratio_with_idle": verdict.growth(rounds["one"], rounds[name])["ratio"],
            "idle": verdict.middle(one.cpu / one.seconds for one in idle[name]),
            "rounds": [asdict(one) for one in rounds[name]],
        }
        for name in fleets
    }


# -- from end to end -------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace, plan: Plan, folder: Path) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    core = cores[0] if len(cores) > 1 else None
    if core is None:
        note("only one core: gateway, engine and clients share it")
    else:
        os.sched_setaffinity(0, {cores[1]})
    names = [name for name in (OURS, YARDSTICK, *(PEERS if options.peers else ())) if _is_there(name)]
    counting = options.perf and can_count(folder)
    with _engine(folder, max(2, plan.models, plan.replicas)) as engines:
        bench = Bench(plan, folder, core, engines, counting)
        found = hops(bench, names)
        streams = _streams_that_fit(plan.idle_streams)
        found["memory"] = memory(bench, [name for name in names if name in (OURS, YARDSTICK)], streams)
        found["flat"] = flatness(bench)
    return {
        "machine": _machine(pinned=core is not None, counting=counting),
        "plan": asdict(plan),
        **found,
        "targets": verdict.as_json(verdict.targets(found)),
    }


@contextmanager
def _engine(folder: Path, ports: int) -> Iterator[list[int]]:
    """The fake engine, on this process's core; the ports it listens on."""
    log = folder / "engine.log"
    process = launch([sys.executable, "-m", "benchmarks.fake_engine", "--ports", str(ports)], log, None)
    try:
        yield _ports_in(log, process)
    finally:
        stop(process)


def _ports_in(log: Path, process: subprocess.Popen[bytes]) -> list[int]:
    deadline = time.monotonic() + ENGINE_SECONDS
    while not (said := log.read_text()).endswith("]\n"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise CannotStart(f"the fake engine does not start: {said[-1000:]}")
        time.sleep(0.05)
    ports: list[int] = json.loads(said)
    return ports


def _is_there(name: str) -> bool:
    missing = KINDS[name].missing()
    if missing is not None:
        note(f"skipped: {missing}")
    return missing is None


def _streams_that_fit(wanted: int) -> int:
    """Each needs two files in the gateway."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = (hard - SPARE_FILES) // 2
    if most < wanted:
        note(f"{most} idle streams instead of {wanted}: no more than {hard} files may be open (ulimit -Hn)")
    return min(wanted, most)


def _machine(*, pinned: bool, counting: bool) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "pinned": pinned,
        "instructions_counted": counting,
    }


def report(found: Mapping[str, Any]) -> str:
    plan, machine = found["plan"], found["machine"]
    how = "gateway on a core of its own" if machine["pinned"] else "all on one core"
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}; {how}",
        f"Medians of {plan['rounds']} rounds of {plan['seconds']:g} s, the gateways in turn.",
        "",
        f"Requests: {plan['connections']} connections, not streamed",
        verdict.load_table(found["requests"], "request"),
        "",
        f"Streams: {plan['streams']} at once, {plan['tokens']} chunks each, one every 10 ms",
        verdict.load_table(found["streams"], "chunk"),
        "",
        "Memory of an open stream on which nothing comes",
        *(verdict.memory_line(name, one) for name, one in found["memory"].items()),
        "",
        "A request when more is configured (x one: less what is used without requests)",
        verdict.flat_table(found["flat"]),
        "",
        "Targets",
        *(target.line() for target in verdict.targets(found)),
    ]
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 when nothing could be measured or, with ``--check``, a target is not met."""
    options = _parser().parse_args(argv)
    plan = QUICK if options.quick else Plan()
    chosen = {"rounds": options.rounds, "seconds": options.seconds, "idle_streams": options.idle_streams}
    plan = replace(plan, **{name: value for name, value in chosen.items() if value is not None})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="torpor-overhead-") as folder:
        try:
            found = run(options, plan, Path(folder))
        except CannotStart as problem:
            sys.stderr.write(f"{problem}\n")
            return 1
    print(report(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if options.check and not all(target["met"] for target in found["targets"]) else 0


def note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python benchmarks/overhead.py", description=__doc__)
    parser.add_argument("--rounds", type=int, metavar="N", help="measure each gateway so often, in turn (3)")
    parser.add_argument("--seconds", type=float, metavar="S", help="of each load in each round (5)")
    parser.add_argument("--idle-streams", type=int, metavar="N", help="open streams to weigh (5000, or what fits)")
    parser.add_argument("--peers", action="store_true", help=f"measure {', '.join(PEERS)} too, those that are there")
    parser.add_argument("--no-perf", dest="perf", action="store_false", help="do not count instructions")
    parser.add_argument("--quick", action="store_true", help="all of it in a few seconds, with figures worth nothing")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures there; times in seconds")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is not met")
    return parser


if __name__ == "__main__":
    sys.exit(main())
