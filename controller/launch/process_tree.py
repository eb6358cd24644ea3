"""All processes of one unit, and their end. Blocks.

A unit's processes are those below its pane, those in its session (children whose parent died belong to it still), and
those that carry its marker in their environment (which find even one that has made a session of its own).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import psutil

from controller.launch import handover, pane
from controller.launch.environment import MARKER

POLL_SECONDS = 0.05
KILL_SECONDS = 10.0
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish", "busybox"})


def members(leader: int | None, marker: str | None) -> set[psutil.Process]:
    """Everything that belongs to the unit whose pane had the pid ``leader``. Never this process or one above it."""
    alive = {process for process in psutil.process_iter() if _belongs(process, leader, marker)}
    for process in [process for process in alive if process.pid == leader]:
        try:
            alive.update(process.children(recursive=True))
        except psutil.Error:
            continue
    here = psutil.Process()
    return {process for process in alive if _runs(process)} - {here, *here.parents()}


def stop(leader: int | None, marker: str | None, seconds: float) -> list[int]:
    """End them all: the server is asked first, then what it left; what has not gone after ``seconds`` is killed.

    Returns the pids of those that could not be ended.
    """
    known = members(leader, marker)
    deadline = time.monotonic() + seconds
    for process in known:
        if process.pid == leader:
            asked = _servers(process)
            _terminate(asked)
            _wait(asked, deadline)
    known |= members(leader, marker)
    _terminate(known)
    _wait(known, deadline)
    last = time.monotonic() + KILL_SECONDS
    while left := {process for process in known | members(leader, marker) if _runs(process)}:
        for process in left:
            _send(process, kill=True)
        _wait(left, min(last, time.monotonic() + 1))
        if time.monotonic() > last:
            break
    return sorted(process.pid for process in left)


def _belongs(process: psutil.Process, leader: int | None, marker: str | None) -> bool:
    try:
        if leader is not None and (process.pid == leader or os.getsid(process.pid) == leader):
            return True
        return marker is not None and process.environ().get(MARKER) == marker
    except (psutil.Error, OSError):
        return False


def _servers(process: psutil.Process) -> set[psutil.Process]:
    """Who is to leave in good order: the process itself, but below one that only waits its children.

    A shell would die at once, and the kernel then hangs up on all that runs in its terminal.
    """
    try:
        below = process.children() if _only_waits(process) else []
    except psutil.Error:
        below = []
    return set().union(*map(_servers, below)) or {process}


def _only_waits(process: psutil.Process) -> bool:
    """A shell, or a pane's program that starts nothing again."""
    return process.name() in SHELLS or [str(handover.PROGRAM), pane.ONCE] == process.cmdline()[-3:-1]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _terminate(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        _send(process, kill=False)


def _send(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
            return
        process.terminate()
        process.resume()  # one that was stopped would not hear it
    except psutil.Error:
        pass  # gone, or another user's: it shows among those left


def _wait(processes: set[psutil.Process], deadline: float) -> None:
    while time.monotonic() < deadline and any(_runs(process) for process in processes):
        time.sleep(POLL_SECONDS)
