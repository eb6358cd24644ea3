"""The client's leaving cancels whatever is being done for it, in whatever phase that is."""

from __future__ import annotations

import asyncio
from types import TracebackType

from router.proxy.body import ClientGone
from router.proxy.door import Door


class Departure:
    """Raises ``ClientGone`` inside its block as soon as the client has left. To be entered once the body is read."""

    __slots__ = ("_door", "_task", "gone")

    def __init__(self, door: Door) -> None:
        self.gone = False
        self._door = door
        self._task = asyncio.current_task()

    def __enter__(self) -> Departure:
        self._door.watch(self._left)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._door.close()
        if self.gone and self._task is not None:
            left = self._task.uncancel() == 0
            if left and isinstance(error, asyncio.CancelledError):
                raise ClientGone from None

    def _left(self) -> None:
        if self._task is not None and not self.gone:
            self.gone = True
            self._task.cancel()
