"""The engines of a soak, and what happens to them: killed and started again, stopped, told to fail."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.gateways import free_port, launch

KILL_PAUSE, DOWN_SECONDS = 15.0, 3.0
"""Between two deaths, and from a death to the next start. In seconds."""

FAULT_PAUSE, STOPPED_SECONDS = 5.0, 5.0
UP_SECONDS = 60.0

FAULTS: Sequence[Mapping[str, Any]] = (
    {"hang": {"times": 2}},
    {"garbage": {"times": 2}},
    {"refuse": {"times": 4}},
    {"short_body": {"times": 2}},
    {"reset_after_tokens": {"tokens": 3, "times": 2}},
    {"close_after_tokens": {"tokens": 3, "times": 2}},
    {"silent_after_tokens": {"tokens": 3, "times": 2}},
    {"error_after_tokens": {"tokens": 3, "times": 2}},
    {"reset_after_tokens": {"tokens": 0, "times": 2}},
)
"""Each ends by itself after so many requests."""


class DoesNotStart(Exception):
    pass


@dataclass
class Engine:
    """One simulated engine. ``section``: what else the YAML says of it."""

    name: str
    model: str
    words: Sequence[str]
    section: Mapping[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def entry(self) -> dict[str, Any]:
        args = [word for word in self.words if word.startswith("--enable-sleep-mode")]
        own = {"name": self.name, "model": self.model, "engine": "sim", "url": self.url, "engine_args": args}
        return own | dict(self.section)

    def start(self, folder: Path) -> None:
        words = ["--model", self.model, "--port", str(self.port), "--log-level", "warning", *self.words]
        self.process = launch([sys.executable, "-m", "runtime.engines.sim", *words], folder / f"{self.name}.log", None)

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


class Mischief:
    """What is done to the engines. ``rests``: set while nothing may happen to them. ``done``: how often what was."""

    def __init__(
        self, gateway: str, mortal: Sequence[Engine], faulty: Sequence[Engine], folder: Path, seed: int
    ) -> None:
        self.done: Counter[str] = Counter()
        self._gateway = gateway
        self._mortal = mortal
        self._faulty = faulty
        self._folder = folder
        self._chance = random.Random(seed)
        self._http = httpx2.AsyncClient(timeout=5, trust_env=False)

    async def run(self) -> None:
        """Until cancelled; then every engine is up again and told of no fault. Raises ``DoesNotStart``."""
        both = [asyncio.create_task(self._kill()), asyncio.create_task(self._spoil())]
        try:
            await asyncio.gather(*both)
        finally:
            for one in both:
                one.cancel()
            await self._repair()

    async def _kill(self) -> None:
        """With ``kill -9``, one after the other; never the last that serves."""
        while True:
            for engine in self._mortal:
                await asyncio.sleep(KILL_PAUSE)
                engine.kill()
                self.done["kill -9"] += 1
                await asyncio.sleep(DOWN_SECONDS)
                engine.start(self._folder)
                await self.until_ready(engine)

    async def _spoil(self) -> None:
        while True:
            await asyncio.sleep(FAULT_PAUSE)
            engine = self._chance.choice(self._faulty)
            if self._chance.random() < 0.3:
                self.done["stopped for a while"] += 1
                engine.signal(signal.SIGSTOP)
                await asyncio.sleep(STOPPED_SECONDS)
                engine.signal(signal.SIGCONT)
                continue
            fault = self._chance.choice(FAULTS)
            self.done[next(iter(fault))] += 1
            try:
                await self._http.post(f"{engine.url}/sim/faults", json=fault)
            except httpx2.HTTPError:
                self.done["faults that did not arrive"] += 1

    async def _repair(self) -> None:
        for engine in (*self._mortal, *self._faulty):
            engine.signal(signal.SIGCONT)
            if engine.process is None or engine.process.poll() is not None:
                engine.start(self._folder)
        await self.until_ready(*self._mortal, *self._faulty)
        for engine in self._faulty:
            await self._http.delete(f"{engine.url}/sim/faults")
        await self._http.aclose()

    async def until_ready(self, *engines: Engine) -> None:
        """As the gateway sees them. Raises ``DoesNotStart``."""
        names = {engine.name for engine in engines}
        deadline = time.monotonic() + UP_SECONDS
        while missing := names - await self._ready():
            if time.monotonic() > deadline:
                raise DoesNotStart(f"{', '.join(sorted(missing))} did not come up; the logs are in {self._folder}")
            await asyncio.sleep(0.2)

    async def _ready(self) -> set[str]:
        try:
            models = (await self._http.get(f"{self._gateway}/models")).json()["models"].values()
        except httpx2.HTTPError:
            return set()
        return {one["name"] for model in models for one in model["instances"] if one["state"] == "ready"}
