"""An event loop whose time passes at once: when nothing is left to do now, it is the time of the next timer.

Nothing outside the loop has a place in it: no sockets, no processes. What is left to a thread is done in the next
round of the loop.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class NothingLeft(Exception):
    """Who is waited for waits for something that will never happen."""


class NeverLater(Exception):
    """Something is done again and again, and no time passes over it."""


MANY_ROUNDS, MOST_ROUNDS = 1_000, 50_000
"""Of the loop at one and the same time."""

MOMENT = 1e-9
"""Seconds that pass with many rounds. A loop lets a timer fire so much too early; who sets it again must get there."""


class _Jump(selectors.SelectSelector):
    """Instead of waiting, it makes it later."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingLeft
        self._rounds = 0 if timeout > 0 else self._rounds + 1
        if self._rounds > MOST_ROUNDS:
            raise NeverLater(f"at {self.now} seconds")
        self.now += max(timeout, MOMENT if self._rounds and self._rounds % MANY_ROUNDS == 0 else 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock begins at 0, in seconds."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        async def work() -> T:
            return func(*args)

        return self.create_task(work())

    def turn(self, times: int = 1) -> None:
        """Do what can be done now, so many rounds of it. No time passes."""
        for _ in range(times):
            self.call_soon(self.stop)
            self.run_forever()

    def pass_time(self, seconds: float) -> None:
        """Do all that is to be done in so many seconds from now."""
        self.call_later(seconds, self.stop)
        self.run_forever()

    def end(self) -> None:
        """Cancel what is left, and close."""
        left = asyncio.all_tasks(self)
        for task in left:
            task.cancel()
        if left:
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.run``, in virtual time. Raises ``NothingLeft`` when it would wait for ever."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.end()
