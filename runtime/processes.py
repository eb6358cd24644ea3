"""Which operating-system process an engine is. A pid alone is reused; with its start time it names one process."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil

GONE = frozenset("ZX")
"""States of a process that has ended, though its parent has not noticed yet."""


def identity(pid: int) -> str | None:
    """``pid:start`` of a running process, None when there is none. Equal identities are the same process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # ticks since boot, by a clock that nobody sets: the same process must have the same identity for ever
        return None if fields[0] in GONE else f"{pid}:{fields[19]}"
    except (OSError, IndexError):  # it has ended, or this is no Linux
        return _identity(pid)


def _identity(pid: int) -> str | None:
    """The same, ten times as slowly."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{pid}:{process.create_time():.2f}"
    except (psutil.NoSuchProcess, ValueError):
        return None


def is_running(process: str) -> bool:
    """Whether the process with this identity still runs."""
    pid = process.partition(":")[0]
    return pid.isdecimal() and identity(int(pid)) == process


def listener(port: int) -> str | None:
    """The identity of the process that listens on a TCP ``port`` of this machine; None if none is to be seen.

    Blocking: reads the kernel's socket tables. Call it off the event loop.
    """
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    pids = sorted(
        {
            connection.pid
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.pid
        }
    )
    return identity(pids[0]) if pids else None


def family(processes: Iterable[str]) -> frozenset[int]:
    """The pids of those that run, by their identities, and of all below them. Blocking."""
    found: set[int] = set()
    for process in processes:
        if is_running(process):
            pid = int(process.partition(":")[0])
            try:
                found |= {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
            except psutil.Error:
                continue  # it has ended meanwhile
    return frozenset(found)


def resident(pids: Iterable[int]) -> int:
    """Bytes of the machine's memory that they hold, pinned and shared ones among them. Blocking."""
    held = 0
    for pid in pids:
        try:
            held += psutil.Process(pid).memory_info().rss
        except psutil.Error:
            continue
    return held
