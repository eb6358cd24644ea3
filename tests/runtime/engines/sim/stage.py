"""What the tests of the simulated engine share: options that are quick, clients, conditions, programs."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from runtime.engines.sim.options import SimOptions
from runtime.engines.sim.server import Served, serving
from tests.patience import until
from tests.ports import free_port

CAPTURES = Path(__file__).parents[3] / "captures"
QUICK = SimOptions(
    model="org/tiny",
    served_model_name=("tiny",),
    port=0,
    ttft=0.0,
    tokens_per_second=0.0,
    sleep_seconds=0.0,
    wake_seconds=0.0,
    enable_sleep_mode=True,
    enable_lora=True,
    health_seconds=0.05,
    health_timeout=0.1,
    abort_lag=0.0,
)
SLOW = replace(QUICK, tokens_per_second=20.0)
SGLANG = replace(QUICK, dialect="sglang")
SLOW_SGLANG = replace(SLOW, dialect="sglang")


class Sim:
    """One engine in this process, and a client for it."""

    def __init__(self, served: Served, client: httpx2.AsyncClient, deaths: list[int]) -> None:
        self.engine = served.engine
        self.port = served.port
        self.client = client
        self.deaths = deaths

    async def post(self, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        return await self.client.post(path, json=body, **more)

    async def get(self, path: str, **more: Any) -> httpx2.Response:
        return await self.client.get(path, **more)

    async def complete(self, prompt: str = "Once upon a time", **fields: Any) -> httpx2.Response:
        return await self.post("/v1/completions", {"model": "tiny", "prompt": prompt, "max_tokens": 5} | fields)

    async def complete_within(self, seconds: float) -> httpx2.Response:
        return await self.post("/v1/completions", {"prompt": "x"}, timeout=seconds)

    async def text(self, prompt: str = "Once upon a time", **fields: Any) -> str:
        answer = await self.complete(prompt, **fields)
        return str(answer.json()["choices"][0]["text"])

    async def fault(self, **wanted: Any) -> None:
        assert (await self.post("/sim/faults", wanted)).status_code == 200

    async def metrics(self) -> dict[str, float]:
        return readings((await self.get("/metrics")).text)

    async def until_running(self, count: int = 1) -> None:
        await until(lambda: len(self.engine.scheduler.running) == count)


@contextlib.asynccontextmanager
async def stage(options: SimOptions) -> AsyncIterator[Sim]:
    deaths: list[int] = []
    async with (
        serving(options, deaths.append) as served,
        httpx2.AsyncClient(base_url=served.url, timeout=15.0) as client,
    ):
        yield Sim(served, client, deaths)


def readings(page: str) -> dict[str, float]:
    """A metrics page as series -> value."""
    lines = (line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#"))
    return {series: float(value) for series, value in lines}


def value_of(metrics: dict[str, float], name: str, **labels: str) -> float:
    """The sum over the series of this name that carry these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        value
        for series, value in metrics.items()
        if series.partition("{")[0] == name and all(label in series for label in wanted)
    )


def sse(text: str) -> list[tuple[str | None, Any]]:
    """Events as (name, data), data parsed unless it is [DONE]."""
    events: list[tuple[str | None, Any]] = []
    for block in filter(None, text.split("\n\n")):
        name = re.search(r"^event: (.*)$", block, re.M)
        data = re.search(r"^data: (.*)$", block, re.M)
        assert data is not None, block
        content = data[1] if data[1] == "[DONE]" else json.loads(data[1])
        events.append((name[1] if name else None, content))
    return events


@contextlib.contextmanager
def program(*words: str, environ: dict[str, str] | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The engine as a process of its own, ready."""
    port = free_port()
    command = [sys.executable, "-m", "runtime.engines.sim", "--port", str(port), "--model", "org/tiny", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ)
    try:
        _until_listening(port, process)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.communicate()


def _until_listening(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 10
    while True:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
