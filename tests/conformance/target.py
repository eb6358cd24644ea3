"""The gateway under test: Torpor, started here, or another one that somebody has started."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.ports import free_port

START_SECONDS = 40.0
MODEL = "conformance"
CLIENT_KEY, ENGINE_KEY = "key-of-the-client", "key-of-the-engine"
PLAIN_ASGI = """
import sys, uvicorn
from controller.config.load import load
from router.app import create_app
file, port = sys.argv[1:]
uvicorn.run(create_app(load(file)), host="127.0.0.1", port=int(port), http="httptools", access_log=False)
"""
"""The gateway as any server may run it."""


@dataclass(frozen=True)
class Target:
    """``key``: what the client shows, if anything; ``engine_key``: what the gateway is to show to the engine.

    ``direct``: with an HTTP server of its own.
    """

    host: str
    port: int
    model: str
    key: str | None
    engine_key: str | None
    direct: bool = True


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "tests/conformance: another gateway than Torpor (docs/conformance.md)")
    group.addoption("--gateway-url", help="where it listens, such as http://127.0.0.1:4000")
    group.addoption("--engine-port", type=int, default=18000, help="where it expects its engine (default: 18000)")
    group.addoption("--gateway-model", default=MODEL, help=f"a model that it has there (default: {MODEL})")
    group.addoption("--gateway-key", help="the key it wants of its clients, if it does")
    group.addoption("--engine-key", help="the key it is to show to its engine, if it has one")
    group.addoption("--conformance-report", type=Path, metavar="FILE", help="write a table of the promises, Markdown")


def given(config: pytest.Config) -> Target | None:
    """The gateway that the options name."""
    url = config.getoption("--gateway-url")
    if url is None:
        return None
    parts = urlsplit(url)
    model, key, engine_key = (config.getoption(name) for name in ("--gateway-model", "--gateway-key", "--engine-key"))
    return Target(parts.hostname or "", parts.port or 80, model, key, engine_key)


@contextlib.contextmanager
def torpor(folder: Path, engine_port: int, *, direct: bool) -> Iterator[Target]:
    """Torpor as a program. ``direct``: with its own HTTP protocol, as users run it; else through plain ASGI."""
    port = free_port()
    file = folder / "torpor.yaml"
    instance = {
        "name": MODEL, "model": MODEL, "engine": "openai", "url": f"http://127.0.0.1:{engine_port}",
        "api_key_env": "CONFORMANCE_ENGINE_KEY",
    }  # fmt: skip
    section = {"router_host": "127.0.0.1", "router_port": port, "api_key_env": "CONFORMANCE_CLIENT_KEY"}
    file.write_text(yaml.safe_dump({"router": section, "instances": [instance]}), encoding="utf-8")
    arguments = ["-m", "router", "--config", str(file)] if direct else ["-c", PLAIN_ASGI, str(file), str(port)]
    environment = os.environ | {"CONFORMANCE_CLIENT_KEY": CLIENT_KEY, "CONFORMANCE_ENGINE_KEY": ENGINE_KEY}
    log = folder / "torpor.log"
    with log.open("wb") as written:
        process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=written, stderr=written)
    try:
        wait_for(lambda: _listens(port, process), "the gateway did not start")
        assert process.poll() is None, log.read_text()
        yield Target("127.0.0.1", port, MODEL, CLIENT_KEY, ENGINE_KEY, direct)
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    text = log.read_text()
    assert "Traceback" not in text, text


def wait_for(ready: Callable[[], bool], otherwise: str) -> None:
    """Until it is so; what goes wrong with connections meanwhile is taken for not yet."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, EOFError):
            if ready():
                return
        time.sleep(0.05)
    raise AssertionError(otherwise)


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is None:
        socket.create_connection(("127.0.0.1", port), 1).close()
    return True
