"""Memory that an engine gives back: awaited, not assumed. It says that it sleeps before the driver has all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controller.residency.measured import free_of, given_back, has_grown, held_by
from controller.residency.memory import Memory, minus
from runtime.gpus import Gpu

POLL_SECONDS = 0.1
SETTLE_SECONDS = 10.0
"""So long memory is awaited; and so long it may take until what an engine holds is steady."""

Read = Callable[[], Awaitable[tuple[Gpu, ...]]]


@dataclass(frozen=True, slots=True)
class Release:
    """Of some processes, seen before they are told: what they hold, and what nobody holds."""

    pids: frozenset[int]
    held: Memory
    free: Memory
    read: Read

    @classmethod
    async def begin(cls, pids: frozenset[int], read: Read) -> Release | None:
        """None where nothing can be seen."""
        gpus = await read()
        return cls(pids, held_by(pids, gpus), free_of(gpus), read) if gpus and pids else None

    async def ends(self, target: Memory, awake: Memory) -> bool:
        """Whether they come down from ``awake`` to ``target`` in time.

        By what they hold; where processes cannot be told apart, by what is free.
        """
        expected = {place: size for place, size in minus(awake, target).items() if place in self.free}
        until = asyncio.get_running_loop().time() + SETTLE_SECONDS
        while True:
            gpus = await self.read()
            held, free = held_by(self.pids, gpus), free_of(gpus)
            if gpus and (given_back(held, target) if self.held else has_grown(self.free, free, expected)):
                return True
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(POLL_SECONDS)
