"""Having the gateway replaced while it serves: its socket stays, and one gateway takes over from the other."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import psutil

from controller.launch.readiness import Probe

POLL_SECONDS = 0.1


class NothingToRenew(Exception):
    """No gateway runs there, or one that knows nothing of this."""


async def renew(keeper: int, port: int, probe: Probe, seconds: float) -> str | None:
    """Tell the process that keeps the socket, and wait until the next gateway answers. Why it does not, if so.

    Raises ``NothingToRenew``.
    """
    before = await asyncio.to_thread(_gateways, keeper)
    if not before:
        raise NothingToRenew
    os.kill(keeper, signal.SIGUSR2)
    deadline, came = time.monotonic() + seconds, False
    while time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
        now = await asyncio.to_thread(_gateways, keeper)
        if came and not now - before:
            return "the next gateway did not start, and the one before it serves on; the log says why"
        came = came or bool(now - before)
        if came and not await asyncio.to_thread(_any_listens, before, port) and await probe.healthy():
            return None
    return f"the next gateway does not serve after {seconds:g} s"


def _gateways(keeper: int) -> set[int]:
    try:
        return {child.pid for child in psutil.Process(keeper).children() if child.status() != psutil.STATUS_ZOMBIE}
    except psutil.NoSuchProcess:
        return set()


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
