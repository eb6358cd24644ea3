"""One call for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """``call`` must end by itself. Whoever asked may leave; the call goes on for the others, until ``close``."""

    def __init__(self, call: Callable[[], Awaitable[T]], fresh_seconds: float = 0.0) -> None:
        self._call = call
        self._fresh = fresh_seconds
        self._task: asyncio.Task[T] | None = None
        self._ended = 0.0

    async def get(self) -> T:
        """Join the call that is under way, take what is not older than ``fresh_seconds``, or call."""
        task = self._task
        if task is None or (task.done() and not self._is_fresh(task)):
            task = self._task = asyncio.create_task(self._timed())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, if all have left
        return await asyncio.shield(task)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _is_fresh(self, task: asyncio.Task[T]) -> bool:
        good = not task.cancelled() and task.exception() is None
        return good and asyncio.get_running_loop().time() - self._ended < self._fresh

    async def _timed(self) -> T:
        try:
            return await self._call()
        finally:
            self._ended = asyncio.get_running_loop().time()
