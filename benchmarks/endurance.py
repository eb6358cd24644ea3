"""``python benchmarks/soak.py``: a gateway under mixed load for as long as you like. Does it come out as it went in?

The gateway and seven simulated engines are processes of their own. Clients stream, leave, dawdle and send what is
wrong; engines are killed and started again, stopped, and told to fail; two sleep and are woken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.cpu import resident_bytes
from benchmarks.crowd import FAULTY, MORTAL, NARROW, SLEEPERS, TOO_LARGE, Crowd
from benchmarks.gateways import free_port, launch, stop
from benchmarks.mischief import DoesNotStart, Engine, Mischief

MOST_GROWTH = 5_000_000
"""Bytes of resident memory, after warming up."""

REST_SECONDS = 6.0
"""Longer than any connection is kept: the gateway's own end after three seconds without use."""

BAD_WORDS = re.compile(
    r"Traceback|never retrieved|never awaited|unclosed|was destroyed|Exception in|ResourceWarning| broke$"
)
GAUGES = re.compile(
    r"^torpor_(?:requests_in_flight|requests_waiting|instance_in_flight|queue_in_flight|queue_waiting)\{[^}]*\} (\S+)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Sample:
    """Seconds since the start, bytes, open files, threads, the sum of all gauges of what is in flight or waits."""

    at: float
    resident: int
    files: int
    threads: int
    in_flight: int
    requests: int
    at_rest: bool = False

    def line(self) -> str:
        rest = "  at rest" if self.at_rest else ""
        return (
            f"{self.at:7.0f} s  {self.resident / 1e6:7.1f} MB  {self.files:5} files  {self.threads:3} threads  "
            f"{self.in_flight:4} in flight  {self.requests:8} requests{rest}"
        )


@dataclass(frozen=True)
class Check:
    name: str
    said: str
    passed: bool


def fleet() -> list[Engine]:
    quick, fast = ("--ttft", "0.02", "--tokens-per-second", "300"), {"first_byte": 3, "idle": 3}
    keeping = ("--enable-responses-store", "--enable-prompt-tokens-details")
    naps = {
        "idle_threshold_seconds": 2,
        "check_interval_seconds": 1,
        "min_sleep_duration": 0,
        "auto_sleep_enabled": True,
    }
    sleepy = ("--enable-sleep-mode", "--sleep-seconds", "0.1", "--wake-seconds", "0.3")
    return [
        *(Engine(f"{MORTAL}-{number}", MORTAL, (*quick, *keeping)) for number in (1, 2)),
        *(Engine(f"{FAULTY}-{number}", FAULTY, quick, {"timeouts": fast}) for number in (1, 2)),
        Engine(NARROW, NARROW, quick),
        *(Engine(name, name, (*quick, *sleepy), {"sleep_manager": naps}) for name in SLEEPERS),
    ]


def write_yaml(folder: Path, port: int, engines: Sequence[Engine]) -> Path:
    file = folder / "torpor.yaml"
    sections = {
        "router": {"router_port": port, "max_body_mb": TOO_LARGE / 1e6 - 1},
        "sleep_manager": {"check_interval_seconds": 1},
        "models": {
            FAULTY: {"balancing": "prefix"},
            NARROW: {"max_in_flight": 2, "max_queued": 2, "queue_timeout_seconds": 5},
        },
        "instances": [engine.entry for engine in engines],
    }
    file.write_text(json.dumps(sections))  # JSON is YAML too
    return file


class Soak:
    """One run. What it wrote stays in ``folder``."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given = given
        self.folder = folder
        self.port = free_port()
        self.engines = fleet()
        self.samples: list[Sample] = []
        self.crowd = Crowd(self.port, given.seed, given.pace)
        self.mischief = Mischief(self.url, self.engines[:2], self.engines[2:4], folder, given.seed)
        self.gateway: subprocess.Popen[bytes] | None = None
        self._began = time.monotonic()
        self._http = httpx2.AsyncClient(base_url=self.url, timeout=10, trust_env=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "gateway.log"

    async def run(self) -> list[Check]:
        """Raises ``DoesNotStart``."""
        try:
            await self._start()
            fresh = await self._rest()
            load = [asyncio.create_task(self.crowd.client(number)) for number in range(self.given.clients + 1)]
            mischief = asyncio.create_task(self.mischief.run())
            await self._watch(self.given.warmup)
            warm = await self._rest()
            await self._watch(self.given.minutes * 60)
            mischief.cancel()
            (ended,) = await asyncio.gather(mischief, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended
            last = await self._rest()
            for one in load:
                one.cancel()
            await asyncio.gather(*load, return_exceptions=True)
            return [*self._checks(fresh, warm, last), *self._ended()]
        finally:
            await self.crowd.close()
            await self._http.aclose()
            self._clear_away()

    async def _start(self) -> None:
        for engine in self.engines:
            engine.start(self.folder)
        file = write_yaml(self.folder, self.port, self.engines)
        words = [sys.executable, "-W", "default", "-m", "router", "--config", str(file)]
        self.gateway = launch(words, self.log, None)
        await self.mischief.until_ready(*self.engines)

    async def _watch(self, seconds: float) -> None:
        """Load goes on, and every half a minute one looks."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(self.given.every, left))
            self._note(await self._sample())

    async def _rest(self) -> Sample:
        """What there is when nobody asks for anything: clients pause, kept connections end."""
        await self.crowd.pause()
        await asyncio.sleep(REST_SECONDS)
        sample = await self._sample(at_rest=True)
        self._note(sample)
        self.crowd.resume()
        return sample

    def _note(self, sample: Sample) -> None:
        self.samples.append(sample)
        print(sample.line(), flush=True)

    async def _sample(self, *, at_rest: bool = False) -> Sample:
        assert self.gateway is not None
        page = (await self._http.get("/metrics", headers={"connection": "close"})).text
        proc = Path("/proc") / str(self.gateway.pid)
        return Sample(
            at=time.monotonic() - self._began,
            resident=resident_bytes(self.gateway.pid),
            files=len(list((proc / "fd").iterdir())),
            threads=len(list((proc / "task").iterdir())),
            in_flight=gauges(page),
            requests=self.crowd.outcomes.total(),
            at_rest=at_rest,
        )

    def _checks(self, fresh: Sample, warm: Sample, last: Sample) -> list[Check]:
        # Connections for health checks come and go.
        checks = at_rest(fresh, warm, last, spare_files=len(self.engines))
        unexpected = self.crowd.unexpected()
        return [*checks, Check("answers as they must be", _listed(unexpected) or "all", not unexpected)]

    def _ended(self) -> list[Check]:
        assert self.gateway is not None
        died = self.gateway.poll()
        if died is None:
            stop(self.gateway)
        said = f"exit code {self.gateway.returncode}" + ("" if died is None else ", before it was told to")
        bad = warnings(self.log.read_text(errors="replace"))
        return [
            Check("its end", said, died is None and self.gateway.returncode in (0, -signal.SIGTERM)),
            Check("warnings in its log", "; ".join(bad[:3]) or "none", not bad),
        ]

    def _clear_away(self) -> None:
        for engine in self.engines:
            engine.signal(signal.SIGCONT)
            engine.kill()
        if self.gateway is not None and self.gateway.poll() is None:
            stop(self.gateway)


def at_rest(fresh: Sample, warm: Sample, last: Sample, spare_files: int) -> list[Check]:
    """What must be as it was: before any load, after warming up, at the end."""
    grown = last.resident - warm.resident
    files = last.files - fresh.files
    return [
        Check("memory after warming up", f"{grown / 1e6:+.1f} MB", abs(grown) <= MOST_GROWTH),
        Check("gauges", f"{last.in_flight} in flight or waiting", last.in_flight == 0),
        Check("open files", f"{files:+} ({last.files})", files <= spare_files),
    ]


def gauges(page: str) -> int:
    """All that is in flight or waits anywhere, from a metrics page."""
    return int(sum(float(value) for value in GAUGES.findall(page)))


def warnings(log: str) -> list[str]:
    """The lines that should not be there."""
    return [line for line in log.splitlines() if BAD_WORDS.search(line)]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def report(soak: Soak, checks: Sequence[Check]) -> str:
    lines = ["", "what clients met"]
    for (name, outcome), count in sorted(soak.crowd.outcomes.items()):
        lines.append(f"  {name:<28}{outcome:<36}{count:>8}")
    lines.append(f"what engines met: {_listed(soak.mischief.done)}\n")
    lines += [f"  {check.name:<32}{'passed' if check.passed else 'FAILED':<8}{check.said}" for check in checks]
    return "\n".join(lines)


def written(soak: Soak, checks: Sequence[Check]) -> dict[str, Any]:
    assert soak.gateway is not None
    return {
        "settings": {name: value for name, value in vars(soak.given).items() if name != "json"},
        "samples": [asdict(sample) for sample in soak.samples],
        "outcomes": {f"{name}: {outcome}": count for (name, outcome), count in sorted(soak.crowd.outcomes.items())},
        "engines": dict(soak.mischief.done),
        "checks": [asdict(check) for check in checks],
    }


def options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak.py", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, metavar="M", help="under load, after warming up (%(default)g)")
    add("--warmup", type=float, default=60.0, metavar="S", help="seconds of load before (%(default)g)")
    add("--clients", type=int, default=24, metavar="N", help="at a time (%(default)s)")
    add("--pace", type=float, default=0.2, metavar="S", help="a client rests so long on average (%(default)g)")
    add("--every", type=float, default=30.0, metavar="S", help="seconds between two looks (%(default)g)")
    add("--seed", type=int, default=1, help="of what clients do and engines suffer (%(default)s)")
    add("--json", type=Path, metavar="PATH", help="write all figures there")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 when all checks pass, 1 when one fails, 2 when it cannot start."""
    given = options(words)
    folder = Path(tempfile.mkdtemp(prefix="torpor-soak-"))

    async def soaked() -> tuple[Soak, list[Check]]:
        soak = Soak(given, folder)
        return soak, await soak.run()

    try:
        soak, checks = asyncio.run(soaked())
    except DoesNotStart as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    print(report(soak, checks))
    print(f"\nLogs are in {folder}")
    if given.json:
        given.json.write_text(json.dumps(written(soak, checks), indent=2))
    return 0 if all(check.passed for check in checks) else 1
