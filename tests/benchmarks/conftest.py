"""A real gateway with two simulated engines behind it. The benchmarks are not installed, so they are found by path."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

BENCHMARK = [sys.executable, str(ROOT / "benchmarks" / "benchmark.py")]
PATIENCE_SECONDS = 20.0


@dataclass
class Gateway:
    """One YAML file, its router and its engines. ``engines``: model -> base URL."""

    folder: Path
    port: int
    engines: Mapping[str, str]
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def file(self) -> Path:
        return self.folder / "fleet.yaml"

    def start(self, *options: str) -> subprocess.Popen[str]:
        """The benchmark, from another folder than the repository's."""
        return subprocess.Popen(
            [*BENCHMARK, "--config", str(self.file), "--json", str(self.folder / "out.json"), *options],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *options: str) -> tuple[int, str]:
        process = self.start(*options)
        output, _ = process.communicate(timeout=40)
        return process.returncode, output

    def written(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "out.json").read_text())
        return found

    def stats(self, model: str) -> dict[str, Any]:
        key = {"authorization": f"Bearer {self.environment['BENCH_KEY']}"} if "BENCH_KEY" in self.environment else {}
        url = f"http://127.0.0.1:{self.port}/traffic/stats/{model.replace('/', '%2F')}"
        found: dict[str, Any] = httpx2.get(url, headers=key, trust_env=False).json()["model_stats"]
        return found


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if httpx2.get(url, trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        in_time = time.monotonic() < deadline and process.poll() is None
        assert in_time, f"{url} does not come up: {log.read_text()[-2000:]}"
        time.sleep(0.05)


def begin(words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """org/fast answers 20 tokens in 0.15 s, org/slow in 0.3 s."""
    speeds = {"org/fast": ("0.05", "200"), "org/slow": ("0.1", "100")}
    folder = tmp_path_factory.mktemp("engines")
    found, processes = {}, []
    for model, (ttft, rate) in speeds.items():
        port = free_port()
        words = ["--model", model, "--port", str(port), "--ttft", ttft, "--tokens-per-second", rate]
        processes.append((begin(["runtime.engines.sim", *words], folder / f"{port}.log"), folder / f"{port}.log"))
        found[model] = f"http://127.0.0.1:{port}"
    for url, (process, log) in zip(found.values(), processes, strict=True):
        wait_for(f"{url}/health", process, log)
    yield found
    for process, _ in processes:
        end(process)


@pytest.fixture
def open_gateway(tmp_path: Path, engines: dict[str, str]) -> Iterator[Callable[..., Gateway]]:
    """Starts a router of the test's own, so that its account begins at nothing. ``key``: what it asks clients for."""
    processes = []

    def opened(key: str | None = None, *, router: bool = True) -> Gateway:
        gateway = Gateway(tmp_path, free_port(), engines)
        section: dict[str, Any] = {"router_port": gateway.port}
        if key is not None:
            section["api_key_env"] = "BENCH_KEY"
            gateway.environment["BENCH_KEY"] = key
        instances = [
            {"name": model.rpartition("/")[2], "model": model, "engine": "sim", "url": url}
            for model, url in engines.items()
        ]
        gateway.file.write_text(yaml.safe_dump({"router": section, "instances": instances}))
        if router:
            log = tmp_path / "router.log"
            processes.append(begin(["router", "--config", str(gateway.file)], log, gateway.environment))
            wait_for(f"http://127.0.0.1:{gateway.port}/health", processes[-1], log)
        return gateway

    yield opened
    for process in processes:
        end(process)


@pytest.fixture
def own_tmux(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A tmux server of this test's own. Yields a way to run its commands."""
    sockets = Path(tempfile.mkdtemp(prefix="tx", dir="/tmp"))  # a socket's path must be short
    monkeypatch.setenv("TMUX_TMPDIR", str(sockets))
    monkeypatch.delenv("TMUX", raising=False)

    def tmux(*words: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", "default", *words], capture_output=True, text=True, check=False, timeout=10
        )
        return done.stdout

    yield tmux
    tmux("kill-server")
    shutil.rmtree(sockets, ignore_errors=True)
