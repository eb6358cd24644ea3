"""A stream that waits for its model is told that it is not forgotten, in the way of its protocol.

Until the first sign the status is open: a failure is a real 503, an engine's error keeps its status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from router import envelope
from router.proxy.call import Call
from router.proxy.headers import REQUEST_ID
from router.proxy.opened_door import OpenedDoor

EVERY_SECONDS = 10.0
"""Between two signs. Whoever sits in between drops a connection after a minute without a byte, at the earliest."""

HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class KeepAlive:
    """While entered, signs go to the client of a stream. ``after``: seconds from when the client asked to the first.

    ``says``: what it waits for.
    """

    def __init__(self, call: Call, after: float, says: Callable[[], str]) -> None:
        self._call = call
        self._after = after
        self._says = says
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> KeepAlive:
        loop = asyncio.get_running_loop()
        opened = isinstance(self._call.door, OpenedDoor)
        wait = EVERY_SECONDS if opened else max(0.0, self._call.asked + self._after - loop.time())
        self._timer = loop.call_later(wait, self._sign)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(self._call.door, OpenedDoor):
            await self._call.door.flush()

    def _sign(self) -> None:
        call = self._call
        sign = envelope.sign_of_life(call.path, self._says())
        if isinstance(call.door, OpenedDoor):
            call.door.write(sign, last=False)
        else:
            call.door.start(200, [*HEADERS, (REQUEST_ID, call.id)], sign, last=False)
            call.door = OpenedDoor(call.door, call.path)
            # The engine's answer has to go on as it begins here: unpacked.
            call.headers = [one for one in call.headers if one[0] != b"accept-encoding"]
        call.door.push()
        self._timer = asyncio.get_running_loop().call_later(EVERY_SECONDS, self._sign)
