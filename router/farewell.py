"""What has left the configuration: a model serves whatever it was asked before, an instance finishes what it has."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine

from controller.fleet.instance import Instance
from controller.fleet.transitions import Transitions
from router.proxy.pool import Pool
from router.traffic.monitor import ModelTraffic

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
"""How often requests of a model that is gone are looked for: none of them tells."""


class Farewells:
    """``pools``: those of all instances; a pool goes with its instance."""

    def __init__(self, pools: dict[Instance, Pool]) -> None:
        self._pools = pools
        self._under_way: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._outlasted: set[str] = set()

    def begin(self, transitions: Transitions) -> None:
        """Nothing new reaches it."""
        transitions.instance.retire()
        self._begin(transitions.instance.name, self._see_off(transitions))

    def outlast(self, name: str, asked: ModelTraffic, over: Callable[[], None]) -> None:
        """``over`` is called once nothing of what its model was asked is left. ``name``: of an instance of it.

        Told again meanwhile, that changes nothing.
        """
        if name not in self._outlasted:
            self._outlasted.add(name)
            self._begin(name, self._outlast(name, asked, over))

    async def ended(self, name: str, seconds: float) -> bool:
        """Wait until no instance that was called ``name`` has anything to do any more."""
        try:
            async with asyncio.timeout(seconds):
                while tasks := self._under_way[name]:
                    await asyncio.wait(tasks)
        except TimeoutError:
            return False
        return True

    async def all_ended(self) -> None:
        """Wait until no instance that has left has anything to do any more."""
        if tasks := self._all():
            await asyncio.wait(tasks)

    def _all(self) -> set[asyncio.Task[None]]:
        return {task for tasks in self._under_way.values() for task in tasks}

    async def aclose(self) -> None:
        tasks = self._all()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, name: str, work: Coroutine[None, None, None]) -> None:
        tasks = self._under_way[name]
        task = asyncio.create_task(work, name=f"farewell of {name}")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _outlast(self, name: str, asked: ModelTraffic, over: Callable[[], None]) -> None:
        try:
            while asked.in_flight:  # noqa: ASYNC110  # some wait for a wake, some in the queue
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._outlasted.discard(name)
        over()

    async def _see_off(self, transitions: Transitions) -> None:
        instance = transitions.instance
        try:
            await transitions.aclose()
            await instance.emptied()
            log.info("%s has left the configuration, and nothing is in flight on it", instance.name)
        finally:
            await transitions.aclose()
            self._pools.pop(instance).close()
