"""uvicorn's HTTP protocol, with a short way for engine paths.

A request to one of them does not become an ASGI task: once its body is there it is handed to the application as a
``Call``, whose door writes to the client's transport. Everything else is uvicorn's as it is, and so are connections,
keep-alive, pipelining and graceful stop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from router.proxy.call import Call
from router.proxy.door import Headers, nothing

log = logging.getLogger(__name__)

BODILESS = (204, 304)
KEEP_DISCARDING = 4
"""Times the limit that is read of a body that is too large: a client cut off while it sends never sees the answer."""

SIZE_LINES = tuple(b"%x\r\n" % size for size in range(2048))
"""How a chunk of each size begins."""

Serve = Callable[[Call], "asyncio.Task[None] | None"]


@dataclass(frozen=True, slots=True)
class ShortWay:
    """What an application has under ``short_way``. ``serve``: by raw path. ``max_body``: bytes.

    ``refuse_size`` answers a call whose body is larger; told whether the connection ends with that.
    """

    serve: Mapping[bytes, Serve]
    max_body: int
    refuse_size: Callable[[Call, bool], None]


class DirectProtocol(HttpToolsProtocol):
    _door: DirectDoor | None = None
    """Of the answer in progress, or the last one."""
    _reading: DirectDoor | None = None
    """Of the request whose body is being read; None if uvicorn does that."""
    _way: ShortWay | None = None

    # -- the parser ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._reading = None

    def on_headers_complete(self) -> None:
        path = self.url.partition(b"?")[0]
        way: ShortWay | None = getattr(self.app, "short_way", None)
        serve = way.serve.get(path) if way is not None else None
        free = self.cycle is None or self.cycle.response_complete
        if serve is None or not free or self.parser.get_method() != b"POST":
            self._become_asgi()
            return
        version = self.parser.get_http_version()
        door = DirectDoor(self, version == "1.1", version != "1.0" and self.parser.should_keep_alive())
        self._door = self._reading = door
        self._way, self._serve = way, serve
        self._path = path.decode("latin-1")
        self._body: list[bytes] = []
        self._size = 0
        self.cycle = door  # type: ignore[assignment]  # it keeps the books that uvicorn looks into
        if self.expect_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        door = self._reading
        if door is None:
            super().on_body(body)
            return
        self._size += len(body)
        assert self._way is not None
        limit = self._way.max_body
        if self._size <= limit:
            self._body.append(body)
        else:
            self._body.clear()
            if self._size > KEEP_DISCARDING * limit and not door.response_complete:
                door.keep_alive = False
                self._refuse_size()

    def on_message_complete(self) -> None:
        door = self._reading
        if door is None:
            super().on_message_complete()
            return
        if door.response_complete:
            return
        assert self._way is not None
        if self._size > self._way.max_body:
            self._refuse_size()
            return
        body = self._body
        whole = body[0] if len(body) == 1 else b"".join(body)
        self._body = []
        call = Call("POST", self._path, self.url, self.headers, whole, door, time.monotonic())
        try:
            task = self._serve(call)
        except Exception:
            log.exception("serving %s broke", self._path)
            self.transport.abort()
            return
        if task is not None:
            door.own(task)

    def _become_asgi(self) -> None:
        """As if uvicorn had done it all."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        super().on_headers_complete()

    def _refuse_size(self) -> None:
        assert self._reading is not None and self._way is not None
        call = Call("POST", self._path, self.url, self.headers, b"", self._reading, time.monotonic())
        self._way.refuse_size(call, not self._reading.keep_alive)

    def send_400_response(self, msg: str) -> None:
        if self._door is None or self._door.response_complete:
            super().send_400_response(msg)
        else:
            self.transport.abort()  # in the middle of an answer nothing else can be said

    # -- the transport -------------------------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        door = self._door
        super().connection_lost(exc)
        if door is not None:
            door.left()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._door is not None:
            self._door.paused = True

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._door is not None:
            self._door.resume()


class _NoEvent:
    def set(self) -> None:
        pass


class DirectDoor:
    """Writes to the client's transport. To uvicorn it is the cycle of the request and its response."""

    __slots__ = (
        "_chunked",
        "_chunks",
        "_left",
        "_protocol",
        "_started",
        "_transport",
        "disconnected",
        "keep_alive",
        "on_resume",
        "paused",
        "response_complete",
    )

    message_event = _NoEvent()

    def __init__(self, protocol: DirectProtocol, can_chunk: bool, keep_alive: bool) -> None:
        self.paused = protocol.flow.write_paused
        self.on_resume: Callable[[], None] = nothing
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = keep_alive
        self._chunks = can_chunk
        self._chunked = False
        self._started = False
        self._left: Callable[[], None] | None = None
        self._protocol = protocol
        self._transport: Any = protocol.transport

    def watch(self, left: Callable[[], None]) -> None:
        if self.disconnected:
            left()
        else:
            self._left = left

    def close(self) -> None:
        self._left = None
        self.on_resume = nothing

    def left(self) -> None:
        watcher, self._left = self._left, None
        self.disconnected = True
        if watcher is not None and not self.response_complete:
            watcher()

    def own(self, task: asyncio.Task[None]) -> None:
        tasks: set[Any] = self._protocol.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def resume(self) -> None:
        self.paused = False
        self.on_resume()

    def start(self, status: int, headers: Headers, chunk: bytes, last: bool) -> None:
        if self.disconnected:
            return
        self._started = True
        parts = [STATUS_LINE[status]]
        sized = status in BODILESS
        for one in headers:
            parts.append(b"%b: %b\r\n" % one)
            if one[0] == b"content-length":
                sized = True
            elif one[0] == b"connection":
                self.keep_alive = False
        if not sized:
            if self._chunks:
                self._chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # such a client is told the end by the connection's
        parts.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self._add(parts, chunk, last)
        self._send(b"".join(parts))
        if last:
            self._complete()

    def write(self, chunk: bytes, last: bool) -> None:
        if self.disconnected:
            return
        if self._chunked and chunk and not last:  # nearly every call
            size = len(chunk)
            line = SIZE_LINES[size] if size < len(SIZE_LINES) else b"%x\r\n" % size
            self._send(b"".join((line, chunk, b"\r\n")))
            return
        parts: list[bytes] = []
        self._add(parts, chunk, last)
        if parts:
            self._send(b"".join(parts))
        if last:
            self._complete()

    def _send(self, data: bytes) -> None:
        try:
            self._transport.write(data)
        except RuntimeError:  # it is closing, and has not said so yet
            self.left()

    def refuse(self, status: int, headers: Headers, body: bytes) -> None:
        if not self._started:
            self.start(status, headers, body, last=True)

    def break_off(self, chunk: bytes) -> None:
        if chunk:
            self.write(chunk, last=False)
        self.close()
        self.disconnected = True
        self._transport.close()

    def finish(self, done: asyncio.Future[None]) -> asyncio.Future[None]:
        return done

    async def flush(self) -> None:
        pass

    def _add(self, parts: list[bytes], chunk: bytes, last: bool) -> None:
        if not self._chunked:
            if chunk:
                parts.append(chunk)
            return
        if chunk:
            parts.append(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if last:
            parts.append(b"0\r\n\r\n")

    def _complete(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self._transport.close()
        self._protocol.on_response_complete()
