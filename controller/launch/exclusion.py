"""Who may change what runs: one launcher at a time works on a YAML, and one program at a time on each process of it."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from controller.launch.tmux import sockets
from controller.launch.unit import Unit

POLL_SECONDS = 0.1

TURN_SECONDS = 30.0
"""For which whoever starts or ends the same process is waited for."""

Turn = Callable[[Unit], AbstractAsyncContextManager[None]]


class AtWork(Exception):
    """Somebody else is changing the same; the message says what."""


@asynccontextmanager
async def alone(file: Path) -> AsyncIterator[None]:
    """Hold a lock on the YAML itself, which goes with the process. Raises ``AtWork`` when another launcher holds it."""
    async with _locked(file, os.O_RDONLY, 0.0, f"another launcher is at work on {file}; wait until it has ended"):
        yield


@asynccontextmanager
async def turn(unit: Unit, seconds: float = TURN_SECONDS) -> AsyncIterator[None]:
    """Nobody else starts or ends ``unit`` meanwhile: the gateway does so too, whatever a launcher waits for.

    Raises ``AtWork`` when somebody else is at it, and goes on for so many ``seconds``.
    """
    file = await asyncio.to_thread(_place) / f"{hashlib.sha256(unit.marker.encode()).hexdigest()[:16]}.lock"
    async with _locked(file, os.O_RDWR | os.O_CREAT, seconds, f"somebody else is starting or ending {unit.name}"):
        yield


def _place() -> Path:
    """Beside tmux's own: who shares its server meets here, whatever the YAML says that somebody may not have read yet.

    Raises ``PermissionError`` where others may write.
    """
    folder = sockets() / f"torpor-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder}: others may write there; remove it")
    return folder


@asynccontextmanager
async def _locked(file: Path, flags: int, seconds: float, problem: str) -> AsyncIterator[None]:
    descriptor = os.open(file, flags | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    try:
        while not _taken(descriptor):
            if time.monotonic() >= deadline:
                raise AtWork(problem)
            await asyncio.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
