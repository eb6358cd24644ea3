"""The way to the client: the seam between the data path and the HTTP server.

Our own server (``router.server``) writes from within the engine's transport. Under any other the door here goes through
plain ASGI, with a small queue in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.types import Message, Receive, Send

HIGH_WATER, LOW_WATER = 65_536, 16_384
"""Bytes that may wait for a slow client before its engine is paused, and at which it goes on."""

STALL_SECONDS = 120.0
"""How long a client may read nothing of what is written to it; where our own server writes, its limits say."""

Headers = list[tuple[bytes, bytes]]


class Door(Protocol):
    """``paused``: the client reads slower than it is written to. ``on_pause``, ``on_resume``: called when that begins,
    and when it has caught up.
    """

    paused: bool
    on_pause: Callable[[], None]
    on_resume: Callable[[], None]

    def watch(self, left: Callable[[], None]) -> None:
        """Call ``left`` once if the client leaves before the end."""

    def close(self) -> None:
        """No more interest in the client's leaving, or in how fast it reads."""

    def own(self, task: asyncio.Task[None]) -> None:
        """The answer goes on in ``task``, which the server must wait for when it stops."""

    def start(self, status: int, headers: Headers, chunk: bytes, last: bool) -> None:
        """Send the head, and the first piece with it. ``last``: that was all."""

    def write(self, chunk: bytes, last: bool) -> None: ...

    def pass_on(self, chunk: bytes, frame: bytes) -> None:
        """Write a piece in the middle. ``frame``: it as an HTTP chunk, if that is how it came."""

    @property
    def straight(self) -> Callable[[bytes], object] | None:
        """What an HTTP chunk can be written to as it came, with nothing in between. Raises ``RuntimeError`` perhaps."""

    def refuse(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer, unless one has begun."""

    def break_off(self, chunk: bytes) -> None:
        """Send a last piece and end so that the client can tell that the answer is not whole."""

    def push(self) -> None:
        """Hand over what was written, though nobody waits for that."""

    def finish(self, done: asyncio.Future[None]) -> Awaitable[None]:
        """Wait until ``done``."""

    async def flush(self) -> None:
        """Wait until what was written has been handed over."""


class AsgiDoor:
    """Through ``send`` and ``receive``. Its writing is done by whoever awaits ``finish`` or ``flush``."""

    straight = None

    def __init__(self, receive: Receive, send: Send) -> None:
        self.paused = False
        self.on_pause: Callable[[], None] = nothing
        self.on_resume: Callable[[], None] = nothing
        self._receive = receive
        self._send = send
        self._started = False
        self._queue: deque[Message] = deque()
        self._waiting = 0
        self._more = asyncio.Event()
        self._left: Callable[[], None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._pushing: asyncio.Task[None] | None = None

    def watch(self, left: Callable[[], None]) -> None:
        self._left = left
        self._watcher = asyncio.create_task(self._watch(left))

    def close(self) -> None:
        self._left = None
        self.on_pause = self.on_resume = nothing
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def own(self, task: asyncio.Task[None]) -> None:
        raise AssertionError("through ASGI everything is in the server's own task")

    def start(self, status: int, headers: Headers, chunk: bytes, last: bool) -> None:
        self._started = True
        self._put({"type": "http.response.start", "status": status, "headers": headers})
        if chunk or last:
            self.write(chunk, last)

    def write(self, chunk: bytes, last: bool) -> None:
        if chunk or last:
            self._put({"type": "http.response.body", "body": chunk, "more_body": not last})

    def pass_on(self, chunk: bytes, frame: bytes) -> None:
        self.write(chunk, False)

    def refuse(self, status: int, headers: Headers, body: bytes) -> None:
        if not self._started:
            self.start(status, headers, body, last=True)

    def break_off(self, chunk: bytes) -> None:
        if chunk:
            self.write(chunk, last=False)

    async def finish(self, done: asyncio.Future[None]) -> None:
        done.add_done_callback(self._wake)
        while not done.done():
            await self.flush()
            if not done.done() and not self._queue:
                self._more.clear()
                await self._more.wait()
        await self.flush()
        done.result()

    def push(self) -> None:
        if self._pushing is None or self._pushing.done():
            self._pushing = asyncio.create_task(self._hand_over())

    async def flush(self) -> None:
        pushing, self._pushing = self._pushing, None
        if pushing is not None:
            await pushing
        await self._hand_over()

    async def _hand_over(self) -> None:
        while self._queue:
            message = self._queue.popleft()
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await self._send(message)
            except TimeoutError:
                self._give_up()
                return
            self._waiting -= len(message.get("body", b""))
            if self.paused and self._waiting <= LOW_WATER:
                self.paused = False
                self.on_resume()

    def _give_up(self) -> None:
        """A client that reads nothing is as good as gone."""
        self._queue.clear()
        left, self._left = self._left, None
        if left is not None:
            left()

    def _put(self, message: Message) -> None:
        self._queue.append(message)
        self._waiting += len(message.get("body", b""))
        self._more.set()
        if not self.paused and self._waiting > HIGH_WATER:
            self.paused = True
            self.on_pause()

    def _wake(self, _: Any) -> None:
        self._more.set()

    async def _watch(self, left: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        left()


def nothing() -> None:
    pass
