"""A gate new requests wait at while the engine sleeps, is paused or moves memory."""

from __future__ import annotations

import asyncio

from runtime.engines.sim.errors import EngineDown


class Gate:
    def __init__(self) -> None:
        self._reasons: set[str] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._broken = False

    def closed_for(self, reason: str) -> bool:
        return reason in self._reasons

    def close(self, reason: str) -> None:
        self._reasons.add(reason)
        self._open.clear()

    def open(self, reason: str) -> None:
        self._reasons.discard(reason)
        if not self._reasons:
            self._open.set()

    def tear_down(self) -> None:
        """Let everybody through, into an error."""
        self._broken = True
        self._open.set()

    async def wait(self) -> None:
        while self._reasons and not self._broken:
            await self._open.wait()
        if self._broken:
            raise EngineDown
