"""Noticing at once that a client has left while its reply is in the making."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive

from runtime.engines.sim.errors import ClientLeft


class Departure:
    """Turns the client's leaving into ClientLeft, raised where the block waits. The body must have been read."""

    def __init__(self, receive: Receive, lag: float = 0.0) -> None:
        self._receive = receive
        self._lag = lag
        self._left = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._lag:
            await asyncio.sleep(self._lag)
        self._left = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.cancel()
        if self._left and kind is asyncio.CancelledError and self._task.uncancel() == 0:
            raise ClientLeft from None
