"""The gateways that ``overhead`` can measure, and how each is started: one row of ``KINDS`` is one gateway."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.flood import request

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 10.0

Fleet = Mapping[str, Sequence[int]]
"""The engines' ports of each model."""


@dataclass(frozen=True, slots=True)
class Kind:
    """``argv``: writes what the gateway needs into a folder and says how it is started, to listen on a port."""

    name: str
    argv: Callable[[Path, int, Fleet], Sequence[str]]
    missing: Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Running:
    name: str
    port: int
    process: subprocess.Popen[bytes]


class CannotStart(Exception):
    pass


def missing_program(name: str, how: str) -> Callable[[], str | None]:
    return lambda: None if _program(name) else f"{name} is not on this machine: {how}"


def _program(name: str) -> str | None:
    """Beside this Python, or on the path, on which Debian has nginx for root only."""
    places = (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")
    return shutil.which(name, path=os.pathsep.join(places))


def _missing_aiohttp() -> str | None:
    found = importlib.util.find_spec("aiohttp")
    return None if found else "aiohttp is not installed: pip install aiohttp into this environment"


# -- each gateway's own ----------------------------------------------------------------------------------------------


def torpor(folder: Path, port: int, fleet: Fleet) -> Sequence[str]:
    """As users run it: vLLM instances, so that the sleep gate is there, traffic and metrics."""
    instances = [
        {"model": model, "name": f"{model}-{engine}", "engine": "vllm", "url": f"http://127.0.0.1:{engine}"}
        for model, engines in fleet.items()
        for engine in engines
    ]
    file = folder / "torpor.yaml"
    file.write_text(json.dumps({"router": {"router_port": port}, "instances": instances}))  # JSON is YAML too
    return [sys.executable, "-m", "router", "--config", str(file), "--log-level", "warning"]


NGINX = """\
daemon off; master_process off; worker_processes 1; worker_rlimit_nofile {files};
pid {folder}/nginx.pid; error_log {folder}/nginx-error.log warn;
events {{ worker_connections {files}; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_buffer_size 128k;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream engines {{ {servers} keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engines; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""


def nginx(folder: Path, port: int, fleet: Fleet) -> Sequence[str]:
    servers = " ".join(f"server 127.0.0.1:{engine};" for engine in _all(fleet))
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, port=port, servers=servers, files=min(files, 65_536)))
    return [_program("nginx") or "nginx", "-c", str(file), "-e", str(folder / "nginx-error.log")]


def rust_router(name: str, *command: str) -> Callable[[Path, int, Fleet], Sequence[str]]:
    """vllm-router and smg have one origin, and their options still."""

    def argv(folder: Path, port: int, fleet: Fleet) -> Sequence[str]:
        urls = [f"http://127.0.0.1:{engine}" for engine in _all(fleet)]
        program = [_program(name) or name, *command]
        metrics = ["--prometheus-port", str(free_port())]  # by default it is the same for both
        where = ["--host", "127.0.0.1", "--port", str(port), *metrics]
        return [*program, *where, "--policy", "round_robin", "--worker-urls", *urls]

    return argv


def litellm(folder: Path, port: int, fleet: Fleet) -> Sequence[str]:
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_base": url, "api_key": "none"}}
        for name, engines in fleet.items()
        for url in (f"http://127.0.0.1:{engine}/v1" for engine in engines)
    ]
    file = folder / "litellm.yaml"
    file.write_text(json.dumps({"model_list": models}))
    return [_program("litellm") or "litellm", "--config", str(file), "--port", str(port), "--num_workers", "1"]


def aiohttp(folder: Path, port: int, fleet: Fleet) -> Sequence[str]:
    return [sys.executable, "-m", "benchmarks.aiohttp_proxy", str(port), *(str(engine) for engine in _all(fleet))]


def _all(fleet: Fleet) -> list[int]:
    return [engine for engines in fleet.values() for engine in engines]


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("torpor", torpor, lambda: None),
        Kind("nginx", nginx, missing_program("nginx", "apt-get install nginx-light")),
        Kind("vllm-router", rust_router("vllm-router"), missing_program("vllm-router", "pip install vllm-router")),
        Kind("smg", rust_router("smg", "launch"), missing_program("smg", "pip install smg")),
        Kind("litellm", litellm, missing_program("litellm", "pip install 'litellm[proxy]'")),
        Kind("aiohttp", aiohttp, _missing_aiohttp),
    )
}
PEERS = tuple(name for name in KINDS if name not in ("torpor", "nginx"))


# -- running one -----------------------------------------------------------------------------------------------------


def launch(words: Sequence[str], log: Path, core: int | None) -> subprocess.Popen[bytes]:
    """Start a program on ``core``; its descendants stay there."""

    def pin() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})

    with log.open("wb") as output:
        return subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, preexec_fn=pin
        )


def start(kind: Kind, folder: Path, fleet: Fleet, core: int | None) -> Running:
    """Raises ``CannotStart`` unless every model is answered for."""
    folder.mkdir()
    port = free_port()
    log = folder / "log"
    process = launch(kind.argv(folder, port, fleet), log, core)
    deadline = time.monotonic() + START_SECONDS
    asked = [request(model) for model in (next(iter(fleet)), next(reversed(list(fleet))))]
    while not all(answers(port, one) for one in asked):
        if process.poll() is not None or time.monotonic() > deadline:
            stop(process)
            said = log.read_text(errors="replace")[-1500:].strip()
            raise CannotStart(f"{kind.name} does not answer. The end of what it said:\n{said}")
        time.sleep(0.1)
    return Running(kind.name, port, process)


def answers(port: int, asked: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(asked)
            return connection.recv(4096)[9:12] == b"200"
    except OSError:
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
