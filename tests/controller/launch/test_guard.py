"""The gateway's session: what runs in it comes back when it is killed, and only then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from controller.config.model import FRONTEND
from controller.launch.handover import Handover
from controller.launch.pane import FIRST_PAUSE, LAST_PAUSE, pause_after
from tests.controller.launch.conftest import Workplace, processes_of, server
from tests.controller.launch.test_launching import until
from tests.controller.reload.test_rollout import Place, sim
from tests.ports import free_port

KILLED, FAILED, LONG = -signal.SIGKILL, 1, LAST_PAUSE + 1
PATIENCE = 20.0


@pytest.mark.parametrize(
    ("code", "lived", "before", "pause"),
    [
        (0, 1.0, 0.0, None),
        (0, LONG, 1.0, None),
        (FAILED, 1.0, 0.0, None),  # it cannot start
        (FAILED, 1.0, FIRST_PAUSE, 2 * FIRST_PAUSE),  # the one before may still hold the port
        (FAILED, LONG, FIRST_PAUSE, None),
        (KILLED, 1.0, 0.0, FIRST_PAUSE),
        (KILLED, 1.0, 1.0, 2.0),
        (KILLED, 1.0, LAST_PAUSE, LAST_PAUSE),
        (KILLED, LONG, LAST_PAUSE, FIRST_PAUSE),
    ],
)
def test_when_it_is_started_again(code: int, lived: float, before: float, pause: float | None) -> None:
    assert pause_after(code, lived, before) == pause


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.kill()


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", trust_env=False, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def test_a_killed_gateway_is_back_and_no_engine_is_touched(workplace: Workplace) -> None:
    """With all of its processes. It is stopped and renewed as before."""
    place = Place(workplace)
    place.write(sim("m", "a", free_port()))
    assert place.do("up", only=[], wait=True)[0] == 0
    before, started = place.pids(), place.started_at()
    kill(below(before[FRONTEND]))
    until(lambda: answers(place.url), PATIENCE)
    assert place.started_at() > started
    assert place.pids() == before
    assert "was killed by signal 9, and is started again" in workplace.log(FRONTEND)
    with httpx2.Client(trust_env=False) as client:
        assert place.ask(client, "m").status_code == 200
    with place.load("m") as failed:
        code, shown = place.do("restart", names=[FRONTEND], wait=True)
    assert (code, failed) == (0, []), shown
    assert place.do("stop", names=[FRONTEND])[0] == 0
    assert place.pids() == {"a": before["a"]}
    assert not answers(place.url)


@pytest.fixture
def frontend(workplace: Workplace) -> Workplace:
    """A tiny server in the gateway's place."""
    workplace.write(server("a"), router={"enable_router": True, "router_port": free_port()})
    return workplace


def test_a_gateway_that_is_told_to_end_stays_so(frontend: Workplace) -> None:
    """By a signal to the pane, too."""
    assert frontend.up() == 0
    pane = frontend.panes()[FRONTEND]
    [gateway] = below(pane.pid)
    os.kill(pane.pid, signal.SIGTERM)
    until(lambda: frontend.panes()[FRONTEND].dead)
    assert gateway not in processes_of(frontend.folder)
    assert "is started again" not in frontend.log(FRONTEND)
    assert frontend.up() == 0
    assert frontend.kill_all() == 0
    assert not frontend.panes()


def test_what_guards_it_may_be_killed(frontend: Workplace) -> None:
    """The gateway serves on; --restart gives it a session again."""
    assert frontend.up() == 0
    guard = frontend.panes()[FRONTEND].pid
    [gateway] = below(guard)
    os.kill(guard, signal.SIGKILL)
    until(lambda: frontend.panes()[FRONTEND].dead)
    assert frontend.up() == 0
    assert "ready, outside tmux" in frontend.output
    assert gateway in processes_of(frontend.folder)
    assert frontend.restart(FRONTEND) == 0
    assert gateway not in processes_of(frontend.folder)
    assert not frontend.panes()[FRONTEND].dead
    assert "outside tmux" not in frontend.output


def test_a_gateway_that_cannot_start_is_not_tried_again(workplace: Workplace) -> None:
    """Its address is not this machine's: how it ended is told as of anything else."""
    place = Place(workplace)
    place.write({"model": "m", "url": f"http://127.0.0.1:{free_port()}"}, router_host="192.0.2.1")
    code, shown = place.do("up", only=[], wait=True)
    assert code == 1, shown
    assert "frontend failed: died, exit status 1" in shown
    assert "is started again" not in workplace.log(FRONTEND)


@contextmanager
def guarded(workplace: Workplace, script: str) -> Iterator[subprocess.Popen[bytes]]:
    """The pane's program alone, without a pane."""
    unit = next(one for one in workplace.operations().units if one.name == FRONTEND)
    with Handover(guarded=True) as handover:
        guard = subprocess.Popen(handover.argv, stderr=subprocess.PIPE)
        words = ("sh", "-c", script)
        handover.give(words, unit.environment, unit.folder, lambda: guard.poll() is None)
    try:
        yield guard
    finally:
        guard.kill()
        guard.communicate(timeout=10)


def test_its_pauses_grow_and_it_can_be_stopped_in_one(frontend: Workplace) -> None:
    """One that is killed at once, again and again, does not run hot."""
    with guarded(frontend, "kill -9 $$") as guard:
        assert guard.stderr is not None
        pauses = [float(guard.stderr.readline().split()[-2]) for _ in range(4)]
        assert pauses == [0.1, 0.2, 0.4, 0.8]
        guard.terminate()
        assert guard.wait(10) in (0, -signal.SIGTERM)  # the second, if that pause was just over


def test_signals_reach_what_it_guards(frontend: Workplace, tmp_path: Path) -> None:
    """SIGUSR1 and SIGUSR2 are no end of it; it ends as what it guards ended."""
    words = f"""
import pathlib, signal, sys
def heard(number, _):
    with pathlib.Path({str(tmp_path / "heard")!r}).open("a") as file:
        file.write(signal.Signals(number).name + " ")
    if number == signal.SIGTERM:
        sys.exit(5)
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, heard)
pathlib.Path({str(tmp_path / "heard")!r}).touch()
while True:
    signal.pause()
"""
    heard = tmp_path / "heard"
    (tmp_path / "program.py").write_text(words)
    with guarded(frontend, f"exec {sys.executable} -I -S {tmp_path / 'program.py'}") as guard:
        until(heard.exists)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            guard.send_signal(number)
            until(lambda number=number: number.name in heard.read_text())  # type: ignore[misc]
        assert guard.wait(10) == 5
    assert heard.read_text() == "SIGUSR1 SIGUSR2 SIGTERM "
