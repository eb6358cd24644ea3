"""The client's leaving cancels whatever is being done for it, in whatever phase that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

from router.proxy.body import ClientGone


class Departure:
    def __init__(self) -> None:
        self.gone = False
        self._task = asyncio.current_task()
        self._watched = True

    def ignore(self) -> None:
        """From here on the client's leaving changes nothing: the last byte is on its way."""
        self._watched = False

    async def watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if self._watched and self._task is not None:
            self.gone = True
            self._task.cancel()


@asynccontextmanager
async def departure(receive: Receive) -> AsyncIterator[Departure]:
    """Raise ``ClientGone`` inside as soon as the client has left. To be entered once the body is read."""
    leaving = Departure()
    watcher = asyncio.create_task(leaving.watch(receive))
    try:
        yield leaving
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if leaving.gone and task is not None and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        leaving.ignore()
        watcher.cancel()
