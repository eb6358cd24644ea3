"""One writer for each target, across tasks and processes. The lock goes with its holder, however that ends."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

POLL_SECONDS = 0.2


@asynccontextmanager
async def only_writer(lock: Path, while_waiting: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Hold ``lock``; as long as another does, ``while_waiting`` is called again and again."""
    while (descriptor := _take(lock)) is None:
        await while_waiting()
        await asyncio.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        _release(lock, descriptor)


def _take(lock: Path) -> int | None:
    """A few system calls that do not wait: no thread, so that a cancelled wait cannot lose a descriptor."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == lock.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _release(lock: Path, descriptor: int) -> None:
    try:
        lock.unlink(missing_ok=True)  # while it is held: who opened it before will see that it is gone
    finally:
        os.close(descriptor)
