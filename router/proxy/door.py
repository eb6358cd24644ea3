"""The way to the client: the seam between the data path and the HTTP server.

A server that offers a door of its own (``router.server.protocol``) is written to from within the engine's transport.
Under any other the door here goes through plain ASGI, with a small queue in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

EXTENSION = "torpor.door"
"""Where in ``scope["extensions"]`` a server puts its door."""

HIGH_WATER, LOW_WATER = 65_536, 16_384
"""Bytes that may wait for a slow client before its engine is paused, and at which it goes on."""

Headers = list[tuple[bytes, bytes]]


class Door(Protocol):
    """``paused``: the client reads slower than it is written to. ``on_resume``: called when it has caught up."""

    paused: bool
    on_resume: Callable[[], None]

    def watch(self, left: Callable[[], None]) -> None:
        """Call ``left`` once if the client leaves before the end."""

    def start(self, status: int, headers: Headers, chunk: bytes, last: bool) -> None:
        """Send the head, and the first piece with it. ``last``: that was all."""

    def write(self, chunk: bytes, last: bool) -> None: ...

    async def break_off(self, chunk: bytes) -> None:
        """Send a last piece and end so that the client can tell that the answer is not whole."""

    async def finish(self, done: asyncio.Future[None]) -> None:
        """Wait until ``done`` and until what was written has been handed over."""

    def close(self) -> None:
        """No more interest: stop watching."""


def door_of(scope: Scope, receive: Receive, send: Send) -> Door:
    door: Door | None = scope.get("extensions", {}).get(EXTENSION)
    return door if door is not None else AsgiDoor(receive, send)


class AsgiDoor:
    """Through ``send`` and ``receive``. Its writing is done by whoever awaits ``finish``."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.paused = False
        self.on_resume: Callable[[], None] = _nothing
        self._receive = receive
        self._send = send
        self._queue: deque[Message] = deque()
        self._waiting = 0
        self._more = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    def watch(self, left: Callable[[], None]) -> None:
        self._watcher = asyncio.create_task(self._watch(left))

    def start(self, status: int, headers: Headers, chunk: bytes, last: bool) -> None:
        self._put({"type": "http.response.start", "status": status, "headers": headers})
        if chunk or last:
            self.write(chunk, last)

    def write(self, chunk: bytes, last: bool) -> None:
        self._put({"type": "http.response.body", "body": chunk, "more_body": not last})

    async def break_off(self, chunk: bytes) -> None:
        if chunk:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def finish(self, done: asyncio.Future[None]) -> None:
        done.add_done_callback(lambda _: self._more.set())
        while True:
            while self._queue:
                message = self._queue.popleft()
                await self._send(message)
                self._waiting -= len(message.get("body", b""))
                if self.paused and self._waiting <= LOW_WATER:
                    self.paused = False
                    self.on_resume()
            if done.done():
                return done.result()
            self._more.clear()
            await self._more.wait()

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def _put(self, message: Message) -> None:
        self._queue.append(message)
        self._waiting += len(message.get("body", b""))
        self.paused = self._waiting > HIGH_WATER
        self._more.set()

    async def _watch(self, left: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        left()


def _nothing() -> None:
    pass
