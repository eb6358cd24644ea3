"""One launcher at a time may change the sessions of a YAML file."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

POLL_SECONDS = 0.1


class AtWork(Exception):
    """Another launcher is changing the sessions of the same file."""


@asynccontextmanager
async def alone(file: Path, seconds: float = 0.0) -> AsyncIterator[None]:
    """Hold a lock on the YAML itself, which goes with the process.

    Raises ``AtWork`` when another holds it, and goes on holding it for so many ``seconds``.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    deadline = time.monotonic() + seconds
    try:
        while not _taken(descriptor):
            if time.monotonic() >= deadline:
                raise AtWork(f"another launcher is at work on {file}; wait until it has ended")
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
