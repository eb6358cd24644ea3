"""Instances that have left the configuration: each finishes what it has, and is then forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict

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

    def begin(self, transitions: Transitions, orphans: ModelTraffic | None) -> None:
        """``orphans``: its model is gone too, and these requests of it have nobody else to serve them."""
        instance = transitions.instance
        if orphans is None:
            instance.retire()
        tasks = self._under_way[instance.name]
        task = asyncio.create_task(self._see_off(transitions, orphans), name=f"farewell of {instance.name}")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def ended(self, name: str, seconds: float) -> bool:
        """Wait until no instance that was called ``name`` has anything to do any more."""
        tasks = set(self._under_way[name])
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return all(task.done() for task in tasks)

    async def aclose(self) -> None:
        tasks = {task for tasks in self._under_way.values() for task in tasks}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _see_off(self, transitions: Transitions, orphans: ModelTraffic | None) -> None:
        instance = transitions.instance
        try:
            if orphans is not None:
                while orphans.in_flight:  # noqa: ASYNC110  # some wait for a wake, some in the queue
                    await asyncio.sleep(LOOK_SECONDS)
                instance.retire()
            await transitions.aclose()
            await instance.emptied()
            log.info("%s has left the configuration, and nothing is in flight on it", instance.name)
        finally:
            await transitions.aclose()
            self._pools.pop(instance).close()
