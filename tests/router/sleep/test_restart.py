"""The real program, killed with -9 at bad moments, over engines that are processes of their own."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.ports import free_port
from tests.router.gateway import AT_ONCE, is_gibberish, text_of, write_yaml
from tests.runtime.engines.sim.stage import readings, value_of

FLAGS = {"vllm": ["--enable-sleep-mode"], "sglang": ["--dialect", "sglang"]}
QUICK = ["--ttft", "0", "--tokens-per-second", "0", "--sleep-seconds", "0.5", "--wake-seconds", "0.5"]


@contextlib.contextmanager
def process(*command: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A program of ours that listens on ``port``; killed at the end, if it was not before."""
    running = subprocess.Popen([sys.executable, "-m", *command])
    try:
        wait(lambda: running.poll() is not None or listens(port))
        assert running.poll() is None
        yield running
    finally:
        running.kill()
        running.wait()
        wait(lambda: not listens(port))  # the gateway below the one that was killed goes with it


def engine(dialect: str, port: int) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    words = ["--port", str(port), "--model", "one", *QUICK, *FLAGS[dialect], "--log-level", "warning"]
    return process("runtime.engines.sim", *words, port=port)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


class Gateway:
    """``python -m router`` over one engine; ``kill`` it as often as you like."""

    def __init__(self, folder: Path, dialect: str, engine_port: int) -> None:
        url = f"http://127.0.0.1:{engine_port}"
        entry = {"name": "one", "model": "one", "engine": "sim", "url": url, "engine_args": FLAGS[dialect]}
        self.file = write_yaml(folder, [entry], sleep_manager={**AT_ONCE, "level": 2})
        self.port = free_port()
        self.engine = url
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=15.0, trust_env=False)

    def running(self) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        words = ["--config", str(self.file), "--port", str(self.port), "--log-level", "warning"]
        return process("router", *words, port=self.port)

    def state(self) -> str:
        status = self.client.get("/sleep/status").json()
        state: str = status["models"]["one"]["instances"]["one"]["state"]
        return state

    def reaches(self, state: str) -> None:
        wait(lambda: self.state() == state)

    def complete(self) -> str:
        body = {"model": "one", "prompt": "Once", "max_tokens": 5}
        return text_of(self.client.post("/v1/completions", json=body))

    def begin(self, path: str) -> None:
        """Ask, and do not care for the answer: it will never come."""

        def ask() -> None:
            with contextlib.suppress(httpx2.HTTPError):
                httpx2.post(f"http://127.0.0.1:{self.port}{path}", timeout=15.0, trust_env=False)

        threading.Thread(target=ask, daemon=True).start()

    def count(self, name: str) -> int:
        page = httpx2.get(f"{self.engine}/metrics", trust_env=False).text
        return int(value_of(readings(page), f"sim:{name}_total"))


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def gateway(tmp_path: Path, dialect: str, port: int) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path, dialect, port)
    with gateway.client:
        yield gateway


@pytest.mark.parametrize("dialect", FLAGS)
def test_killed_with_minus_nine(gateway: Gateway, dialect: str, port: int) -> None:
    """Killed while its model sleeps, or is half way there or back: started again, the next request is answered."""
    with engine(dialect, port) as alive:
        said = []
        for moment in ("falling_asleep", "asleep", "waking"):
            with gateway.running() as router:
                said.append(gateway.complete())
                gateway.begin("/model/sleep/one")
                if moment == "waking":
                    gateway.reaches("asleep")
                    gateway.begin("/model/wake/one")
                gateway.reaches(moment)
                router.send_signal(signal.SIGKILL)
                router.wait()
        with gateway.running():
            said.append(gateway.complete())
            assert gateway.state() == "ready"
        assert len(set(said)) == 1
        assert not is_gibberish(said[0])
        assert gateway.count("requests_while_asleep") == 0
        assert alive.poll() is None


@pytest.mark.parametrize("dialect", ["sglang"])
def test_the_engine_is_restarted_meanwhile(gateway: Gateway, dialect: str, port: int) -> None:
    """The mark of a process that is gone is void: the new one serves, and is told nothing."""
    with engine(dialect, port), gateway.running() as router:
        assert gateway.client.post("/model/sleep/one").status_code == 200
        router.send_signal(signal.SIGKILL)
        router.wait()
    with engine(dialect, port) as alive, gateway.running():
        assert gateway.state() == "ready"
        assert not is_gibberish(gateway.complete())
        assert (gateway.count("wake_calls"), gateway.count("sleep_calls")) == (0, 0)
        assert alive.poll() is None
