"""Two real vLLM servers and the router, started by ``launch.py`` in tmux sessions on a private socket."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import yaml
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".vllm-venv"
MODELS = VENV / "models"
FAST, SLOW, LORA = (str(MODELS / name) for name in ("fast", "slow", "lora"))
LAUNCH_SECONDS = 400
ON_CPU = {
    "VLLM_SERVER_DEV_MODE": "1",  # the sleep endpoints; the flag that goes with them a CPU refuses
    "CUDA_VISIBLE_DEVICES": "",  # so the two need not wait for each other
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass
class Fleet:
    """One YAML file, and what a user does with it. ``ports`` by the instance's name; the router is ``frontend``."""

    file: Path
    ports: dict[str, int]
    environment: dict[str, str]
    http: httpx2.Client

    def launch(self, *options: str, seconds: float = LAUNCH_SECONDS) -> subprocess.CompletedProcess[str]:
        """``launch.py`` as a user without a terminal runs it."""
        return subprocess.run(
            [sys.executable, str(ROOT / "launch.py"), "--config", str(self.file), *options],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def pids(self) -> dict[str, int]:
        """The process in each session, by the unit's name."""
        listed = self.launch("--list-sessions").stdout
        return {name: int(pid) for name, pid in re.findall(r"^kvcached-(\S+): pid (\d+)", listed, re.MULTILINE)}

    def log(self, name: str) -> str:
        return self.launch("--logs", name).stdout

    def metric(self, name: str, sample: str, **labels: str) -> float:
        """The sum of the samples that carry ``labels``, on the engine's own page or the router's."""
        page = self.http.get(f"{self.url(name)}/metrics").text
        return sum(
            found.value
            for family in text_string_to_metric_families(page)
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )

    def running(self, name: str) -> float:
        """How many requests the engine itself says it is at work on."""
        return self.metric(name, "vllm:num_requests_running")

    def sleeps(self, name: str) -> bool:
        """The engine's own word."""
        return bool(self.http.get(f"{self.url(name)}/is_sleeping").json()["is_sleeping"])

    def state(self, name: str) -> str:
        """The gateway's word."""
        models = self.http.get(f"{self.url('frontend')}/models").json()["models"]
        return next(str(one["state"]) for model in models.values() for one in model["instances"] if one["name"] == name)

    def sleep(self, name: str) -> httpx2.Response:
        """Put to sleep by hand, through the gateway."""
        return self.http.post(f"{self.url('frontend')}/model/sleep/{name}")


def until(true: Callable[[], bool], seconds: float) -> float:
    """Wait until it is ``true``; the seconds that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() < began + seconds, f"it did not happen within {seconds:g} s"
        time.sleep(0.02)
    return time.monotonic() - began


def family(pid: int) -> set[psutil.Process]:
    """A process and all below it."""
    leader = psutil.Process(pid)
    return {leader, *leader.children(recursive=True)}


def alive(processes: set[psutil.Process]) -> set[psutil.Process]:
    """Those that still run. One that is dead may stay in the process table: tmux does not always look after its own."""
    return {one for one in processes if _runs(one)}


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def engine(name: str, port: int, model: str, *args: str, **keys: Any) -> dict[str, Any]:
    return {
        "name": name,
        "model": model,
        "engine": "vllm",
        "using_venv": True,
        "venv_path": str(VENV),
        "port": port,
        "sleep_flags": False,
        "env": ON_CPU,
        "engine_args": [f"--served-model-name {name}", "--dtype float32 --enforce-eager --max-model-len 1024", *args],
        **keys,
    }


def write(file: Path, ports: dict[str, int]) -> None:
    lora = ("--enable-lora --max-lora-rank 8", f"--lora-modules lora={LORA}")
    document = {
        "router": {"enable_router": True, "router_port": ports["frontend"]},
        "sleep_manager": {"min_sleep_duration": 0},
        "launch": {"ready_timeout_seconds": 300},
        "instances": [
            engine("fast", ports["fast"], FAST, *lora, aliases=["nickname"]),
            engine("slow", ports["slow"], SLOW, sleep_manager={"level": 2}),
        ],
    }
    file.write_text(yaml.safe_dump(document, sort_keys=False))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Everything up; whatever is left of it afterwards is killed."""
    with launched(tmp_path_factory.mktemp("fleet"), ("fast", "slow", "frontend"), write) as fleet:
        yield fleet


@contextmanager
def launched(folder: Path, names: Sequence[str], write: Callable[[Path, dict[str, int]], None]) -> Iterator[Fleet]:
    """All that ``write`` puts into the YAML file, up until the end."""
    if not (VENV / "installed").exists():
        pytest.fail("there is no vLLM here: run scripts/test-vllm")
    sockets = Path(tempfile.mkdtemp(prefix="tx", dir="/tmp"))  # a socket's path must be short
    environment = {**os.environ, "TMUX_TMPDIR": str(sockets)}
    environment.pop("TMUX", None)
    ports = {name: free_port() for name in names}
    http = httpx2.Client(timeout=60)
    fleet = Fleet(folder / "fleet.yaml", ports, environment, http)
    write(fleet.file, ports)
    started: set[psutil.Process] = set()
    try:
        done = fleet.launch()
        for pid in fleet.pids().values():
            started |= family(pid)
        assert done.returncode == 0, done.stdout + done.stderr
        yield fleet
    finally:
        fleet.launch("--kill-all")
        subprocess.run(["tmux", "-L", "default", "kill-server"], env=environment, capture_output=True, check=False)
        for process in alive(started):
            process.kill()
        http.close()
        shutil.rmtree(sockets, ignore_errors=True)


@pytest.fixture
def client(fleet: Fleet) -> Iterator[OpenAI]:
    """The official client at the one address, as it comes but for its retries."""
    with OpenAI(base_url=f"{fleet.url('frontend')}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client
