"""One launcher at a time may change the sessions of a YAML file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class AtWork(Exception):
    """Another launcher is changing the sessions of the same file."""


@asynccontextmanager
async def alone(file: Path) -> AsyncIterator[None]:
    """Hold a lock on the YAML itself, which goes with the process. Raises ``AtWork`` when another holds it."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AtWork(f"another launcher is at work on {file}; wait until it has ended") from None
        yield
    finally:
        os.close(descriptor)
