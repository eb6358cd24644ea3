"""Which operating-system process an engine is. A pid alone is reused; with its start time it names one process."""

from __future__ import annotations

import psutil


def identity(pid: int) -> str | None:
    """``pid:start`` of a running process, None when there is none. Equal identities are the same process."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{pid}:{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


def is_running(process: str) -> bool:
    """Whether the process with this identity still runs."""
    return identity(int(process.partition(":")[0])) == process


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
