"""Work that is done once however many ask for it, and done to the end though they leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from controller.fleet.errors import NotPossible, TransitionRefused
from state.database import StateError

log = logging.getLogger(__name__)


class SingleFlight:
    """One task for each kind of work on ``name``. ``broke`` is told of every error that ends one."""

    def __init__(self, name: str, broke: Callable[[BaseException], None]) -> None:
        self._name = name
        self._broke = broke
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def running(self, what: str) -> asyncio.Task[None] | None:
        task = self._tasks.get(what)
        return None if task is None or task.done() else task

    def start(self, what: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """The task that does ``what``; a new one unless it runs."""
        task = self.running(what)
        if task is None:
            task = self._tasks[what] = asyncio.create_task(_run(work), name=f"{what} {self._name}")
            task.add_done_callback(self._see)
        return task

    async def join(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, or wait for whoever does. Leaving does not stop it.

        Raises ``NotPossible`` when all is stopped meanwhile.
        """
        task = self.start(what, work)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            asking = asyncio.current_task()
            if not task.cancelled() or (asking is not None and asking.cancelling()):
                raise
            raise NotPossible(f"{self._name!r} has been taken out of service meanwhile") from None

    async def aclose(self) -> None:
        """Break all of it off. Asked again, that does not disturb what is tidied up."""
        for task in self._tasks.values():
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _see(self, task: asyncio.Task[None]) -> None:
        """Nobody may be waiting for it. A refusal is seen in the state; anything else must not get lost."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, StateError):
            log.error("%s: %s", task.get_name(), error)
        elif not isinstance(error, TransitionRefused):
            log.error("%s broke", task.get_name(), exc_info=error)
        self._broke(error)


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
