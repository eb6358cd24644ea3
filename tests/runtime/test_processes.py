"""Which process is which: by pid and start, and by the port it listens on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runtime.processes import family, identity, is_running, listener, resident

SLEEPER = "import sys; print('up', flush=True); sys.stdin.read()"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SLEEPER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        started.stdout.readline()
        yield started
        started.kill()


def test_an_identity_stays_the_same(process: subprocess.Popen[str]) -> None:
    """Asked twice, and by another process, a running process has one identity."""
    own = identity(process.pid)
    assert own is not None
    assert own == identity(process.pid)
    assert own.startswith(f"{process.pid}:")
    program = f"from runtime.processes import identity; print(identity({process.pid}))"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == own
    assert is_running(own)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_an_identity_outlives_a_change_of_the_clock(
    process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wall-clock start times move when the clock is set; a mark from before must still fit."""
    own = identity(process.pid)
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 12345.0)
    assert identity(process.pid) == own


def test_processes_differ(process: subprocess.Popen[str]) -> None:
    """Two processes never share an identity."""
    assert identity(process.pid) != identity(os.getpid())


def test_a_dead_process_has_no_identity(process: subprocess.Popen[str]) -> None:
    """Not even while it is a zombie that nobody has waited for."""
    own = identity(process.pid)
    assert own is not None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert identity(process.pid) is None
    assert not is_running(own)
    process.wait()
    assert identity(process.pid) is None
    assert not is_running(own)


def test_a_reused_pid_is_another_process(process: subprocess.Popen[str]) -> None:
    """The same pid with another start is not the process that was meant."""
    assert not is_running(f"{process.pid}:1.00")


@pytest.mark.parametrize("text", ["", "x", ":", "x:1", "-1:5", "99999999999999999999:1"])
def test_what_is_no_identity_runs_not(text: str) -> None:
    """A mark written by an older version, or by hand, is no reason to fail."""
    assert not is_running(text)


def test_the_listener_of_a_port() -> None:
    """Who listens is told; a port nobody listens on has none, not even when it is bound or connected from."""
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert listener(port) is None
        server.listen()
        assert listener(port) == identity(os.getpid())
        client.connect(("127.0.0.1", port))
        assert listener(client.getsockname()[1]) is None
    assert listener(port) is None


def test_a_family_is_a_process_and_all_below_it(process: subprocess.Popen[str]) -> None:
    """By its identity: a pid that now belongs to somebody else is nobody's."""
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    with subprocess.Popen(
        [sys.executable, "-c", program, SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        own, other = identity(parent.pid), identity(process.pid)
        assert own is not None
        assert other is not None
        found = family([own, other, f"{os.getpid()}:1", "nobody:1"])
        below = {child.pid for child in psutil.Process(parent.pid).children(recursive=True)}
        assert found == {parent.pid, process.pid, *below}
        assert below
        assert resident(found) > resident([process.pid]) > 0
        for pid in below:
            psutil.Process(pid).kill()
    assert resident([parent.pid]) == 0
