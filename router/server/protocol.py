"""uvicorn's HTTP protocol with a door of its own: pieces of an answer go to the client's transport without a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from router.proxy.door import EXTENSION, Headers

BODILESS = (204, 304)


class DirectProtocol(HttpToolsProtocol):
    _door: DirectDoor | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._door = DirectDoor(cycle)
        cycle.scope["extensions"] = cast("dict[str, dict[object, object]]", {EXTENSION: self._door})
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._door is not None:
            self._door.left()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._door is not None:
            self._door.paused = True

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._door is not None:
            self._door.resume()


class DirectDoor:
    """Writes what uvicorn's own ``send`` would, in one write where it takes two, and keeps its books for it."""

    __slots__ = ("_chunked", "_cycle", "_left", "on_resume", "paused")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self.paused = False
        self.on_resume: Callable[[], None] = _nothing
        self._left: Callable[[], None] | None = None
        self._cycle = cycle
        self._chunked = False

    def watch(self, left: Callable[[], None]) -> None:
        if self._cycle.disconnected:
            left()
        else:
            self._left = left

    def left(self) -> None:
        watcher, self._left = self._left, None
        if watcher is not None and not self._cycle.response_complete:
            watcher()

    def resume(self) -> None:
        self.paused = False
        self.on_resume()

    def start(self, status: int, headers: Headers, chunk: bytes, last: bool) -> None:
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        parts = [STATUS_LINE[status]]
        sized = status in BODILESS
        for name, value in headers:
            parts.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                sized = True
        if not sized and cycle.scope["http_version"] == "1.1":
            self._chunked = True
            parts.append(b"transfer-encoding: chunked\r\n")
        elif not sized:
            cycle.keep_alive = False  # such a client is told the end by the connection's
        parts.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        self._add(parts, chunk, last)
        cycle.transport.write(b"".join(parts))
        if last:
            self._complete()

    def write(self, chunk: bytes, last: bool) -> None:
        if self._cycle.disconnected:
            return
        if self._chunked and not last:  # nearly every call
            self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            return
        parts: list[bytes] = []
        self._add(parts, chunk, last)
        if parts:
            self._cycle.transport.write(b"".join(parts))
        if last:
            self._complete()

    async def break_off(self, chunk: bytes) -> None:
        if chunk:
            self.write(chunk, last=False)
        self._left = None
        self._cycle.disconnected = True  # uvicorn need not complain that the answer is not whole
        self._cycle.transport.close()

    async def finish(self, done: asyncio.Future[None]) -> None:
        await done

    def close(self) -> None:
        self._left = None
        self.on_resume = _nothing

    def _add(self, parts: list[bytes], chunk: bytes, last: bool) -> None:
        if not self._chunked:
            parts.append(chunk)
            return
        if chunk:
            parts.append(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if last:
            parts.append(b"0\r\n\r\n")

    def _complete(self) -> None:
        cycle = self._cycle
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


def _nothing() -> None:
    pass
