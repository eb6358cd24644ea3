"""Who generates now and who waits: a limit and a queue, first come first served."""

from __future__ import annotations

import asyncio

from runtime.engines.sim.generation import FinishReason, Generation


class Scheduler:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.running: set[Generation] = set()
        self._queue: dict[Generation, asyncio.Future[None]] = {}
        self._frozen = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> tuple[Generation, ...]:
        return tuple(self._queue)

    @property
    def size(self) -> int:
        return len(self.running) + len(self._queue)

    async def admit(self, generation: Generation) -> None:
        """Return when the generation may run, or was ended while it waited."""
        self._idle.clear()
        if len(self.running) < self._limit and not self._queue and not self._frozen:
            self.running.add(generation)
            return
        turn = self._queue[generation] = asyncio.get_running_loop().create_future()
        await turn

    def leave(self, generation: Generation) -> None:
        self.running.discard(generation)
        self._queue.pop(generation, None)
        self._fill()
        if not self.running and not self._queue:
            self._idle.set()

    def _fill(self) -> None:
        while self._queue and not self._frozen and len(self.running) < self._limit:
            following = next(iter(self._queue))
            turn = self._queue.pop(following)
            if not turn.done():
                self.running.add(following)
                turn.set_result(None)

    def end_all(self, reason: FinishReason) -> None:
        for generation in self.running:
            generation.end(reason)
        for generation, turn in list(self._queue.items()):
            generation.end(reason)
            if not turn.done():
                turn.set_result(None)

    def freeze(self) -> None:
        self._frozen = True
        for generation in self.running:
            generation.freeze()

    def thaw(self) -> None:
        self._frozen = False
        for generation in self.running:
            generation.thaw()
        self._fill()

    async def idle(self) -> None:
        await self._idle.wait()
