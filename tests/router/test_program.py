"""``python -m router`` as a program: how it starts, and how it says that it cannot."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.ports import free_port


def write(folder: Path, port: int, more: str = "") -> Path:
    file = folder / "torpor.yaml"
    engines = "instances:\n  - {model: m, url: 'http://127.0.0.1:9'}\n"
    file.write_text(f"router: {{router_port: {port}}}\n{more}{engines}")
    return file


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "router", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "default", "-m", "router", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def answers(url: str) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            return httpx2.get(f"{url}/health", trust_env=False).status_code == 200
        except httpx2.HTTPError:
            time.sleep(0.05)
    return False


def test_mistakes_are_all_it_says(tmp_path: Path) -> None:
    """A YAML with a mistake: exit code 2, the mistake with its line, no traceback."""
    done = run("--config", str(write(tmp_path, 8080, "rooter: {}\n")))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"{tmp_path}/torpor.yaml:2: rooter: unknown key (did you mean 'router'?)"]


def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    """Exit code 1 and the reason, no traceback."""
    done = run("--config", str(write(tmp_path, free_port(), "state: {url: 'sqlite:////proc/none/x.db'}\n")))
    assert done.returncode == 1
    assert "cannot use the state database" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gateway_starts_without_what_only_launchers_and_new_releases_need(tmp_path: Path) -> None:
    """Whoever replaces one that died has clients waiting."""
    opening = f"""
import asyncio, sys, router.gateway
from state.database import open_database

async def main():
    async with open_database("sqlite:///{tmp_path}/s.db"):
        print(sorted({{"alembic", "libtmux", "rich"}} & set(sys.modules)))

asyncio.run(main())
"""
    starts = [subprocess.check_output([sys.executable, "-c", opening], text=True, timeout=30) for _ in range(2)]
    assert starts == ["['alembic']\n", "[]\n"]


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    """Exit code 1 before anything else is touched: there is no database afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--config", str(write(tmp_path, port)))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.parametrize("flag", ["--config", "--config_path"])
def test_it_serves_where_the_yaml_says_and_stops_cleanly(tmp_path: Path, flag: str) -> None:
    """kvcached's flag too. SIGTERM: exit code 0, and nothing is left open."""
    port = free_port()
    with running(flag, str(write(tmp_path, port))) as process:
        assert answers(f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=10)[1]
        assert process.returncode == 0
        assert "Warning" not in log


def test_a_signal_has_the_yaml_applied(tmp_path: Path) -> None:
    """SIGUSR1: a broken YAML changes nothing, a good one applies, and the program serves on."""
    port = free_port()
    file, url = write(tmp_path, port), f"http://127.0.0.1:{port}"
    with running("--config", str(file)) as process:
        assert answers(url)
        digest = httpx2.get(f"{url}/get_server_info", trust_env=False).json()["config_digest"]
        good = write(tmp_path, port, "sleep_manager: {level: 2}\n").read_text()
        for text in ("rooter: {}\n", good):
            file.write_text(text)
            process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while httpx2.get(f"{url}/get_server_info", trust_env=False).json()["config_digest"] == digest:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=10)[1]
        assert "sleep_manager.level: 1 -> 2" in log


def test_an_open_address_without_a_key_is_said(tmp_path: Path) -> None:
    """On an address that others can reach it says plainly what is open."""
    port = free_port()
    file = write(tmp_path, port)
    with running("--config", str(file), "--host", "0.0.0.0") as process:
        assert answers(f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        assert "OPEN TO THE NETWORK" in process.communicate(timeout=10)[1]
