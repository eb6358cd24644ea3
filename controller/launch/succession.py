"""Having the gateway replaced while it serves: its socket stays, and one gateway takes over from the other."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import psutil

from controller.launch.readiness import Probe

POLL_SECONDS = 0.1
INHERITS = "--inherit"
"""On the command line of every gateway below the process that keeps the socket."""


class NothingToRenew(Exception):
    """No gateway runs there, or one that knows nothing of this."""


async def renew(leader: int, port: int, probe: Probe, seconds: float) -> str | None:
    """Tell the process that keeps the socket, and wait until the next gateway answers. Why it does not, if so.

    ``leader``: the pid of the pane, which passes it on.

    Raises ``NothingToRenew``.
    """
    before = await asyncio.to_thread(_gateways, leader)
    if not before:
        raise NothingToRenew
    os.kill(leader, signal.SIGUSR2)
    deadline, came = time.monotonic() + seconds, False
    while time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
        now = await asyncio.to_thread(_gateways, leader)
        if came and not now - before:
            return "the next gateway did not start, and the one before it serves on; the log says why"
        came = came or bool(now - before)
        if came and not await asyncio.to_thread(_any_listens, before, port) and await probe.healthy():
            return None
    return f"the next gateway does not serve after {seconds:g} s"


def _gateways(leader: int) -> set[int]:
    try:
        return {below.pid for below in psutil.Process(leader).children(recursive=True) if _is_gateway(below)}
    except psutil.NoSuchProcess:
        return set()


def _is_gateway(process: psutil.Process) -> bool:
    """Whether it has inherited from one that keeps a socket for it."""
    try:
        return INHERITS in process.cmdline()
    except psutil.Error:
        return False


def _any_listens(pids: set[int], port: int) -> bool:
    """Whether one of them still takes connections: it lets go of the socket when it leaves."""
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections("tcp")
        except psutil.Error:
            continue
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections):
            return True
    return False
