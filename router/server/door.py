"""The door to a client through its own transport: nothing between the engine's bytes and the client's socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from router.proxy.buffered import Buffered
from router.proxy.door import Headers, nothing
from router.proxy.headers import LINE

BODILESS = (204, 304)
STATUS = {status: line.removesuffix(b"\r\n") for status, line in STATUS_LINE.items()}
FRAMING = frozenset({b"content-length", b"connection"})


class Connection(Protocol):
    """What a door needs of the connection it belongs to."""

    transport: Any
    tasks: set[Any]
    flow: Any

    def on_response_complete(self) -> None: ...

    def hang_up(self) -> None: ...


class _NoEvent:
    def set(self) -> None:
        pass


class DirectDoor:
    """Writes to the client's transport. To uvicorn it is the cycle of the request and its response.

    ``held``: bytes of the request's body, counted in ``buffered`` until the end.
    """

    __slots__ = (
        "_body",
        "_buffered",
        "_chunked",
        "_chunks",
        "_left",
        "_protocol",
        "_started",
        "_transport",
        "disconnected",
        "held",
        "keep_alive",
        "on_pause",
        "on_resume",
        "paused",
        "response_complete",
    )

    message_event = _NoEvent()

    def __init__(self, protocol: Connection, buffered: Buffered, can_chunk: bool, keep_alive: bool) -> None:
        self.paused = protocol.flow.write_paused
        self.on_pause: Callable[[], None] = nothing
        self.on_resume: Callable[[], None] = nothing
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = keep_alive
        self.held = 0
        self._body: bytes | bytearray = b""
        self._buffered = buffered
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
        self.on_pause = self.on_resume = nothing

    def left(self) -> None:
        watcher, self._left = self._left, None
        self.disconnected = True
        self.let_go()
        if watcher is not None and not self.response_complete:
            watcher()

    def own(self, task: asyncio.Task[None]) -> None:
        tasks: set[Any] = self._protocol.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def pause(self) -> None:
        self.paused = True
        self.on_pause()

    def resume(self) -> None:
        self.paused = False
        self.on_resume()

    def start(self, status: int, headers: Headers, chunk: bytes, last: bool) -> None:
        if self.disconnected:
            return
        self._started = True
        lines = [STATUS[status]]
        sized = status in BODILESS
        for one in headers:
            if one[0] in FRAMING:
                if one[0] == b"connection":  # nobody here says anything but close, which is said below
                    self.keep_alive = False
                    continue
                sized = True
            lines.append(LINE(one))
        if not sized:
            if self._chunks:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked")
            else:
                self.keep_alive = False  # such a client is told the end by the connection's
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        head = b"\r\n".join(lines)
        if self._chunked:
            parts = [head]
            self._add(parts, chunk, last)
            self._send(b"".join(parts))
        else:
            self._send(head + chunk)
        if last:
            self._complete()

    def write(self, chunk: bytes, last: bool) -> None:
        if self.disconnected:
            return
        parts: list[bytes] = []
        self._add(parts, chunk, last)
        if parts:
            self._send(b"".join(parts))
        if last:
            self._complete()

    def pass_on(self, chunk: bytes, frame: bytes) -> None:
        if not frame or not self._chunked:
            self.write(chunk, False)
        elif not self.disconnected:
            try:
                self._transport.write(frame)
            except RuntimeError:  # it is closing, and has not said so yet
                self.left()

    @property
    def straight(self) -> Callable[[bytes], object] | None:
        write: Callable[[bytes], object] = self._transport.write
        return write if self._chunked and not self.disconnected else None

    def _send(self, data: bytes) -> None:
        try:
            self._transport.write(data)
        except RuntimeError:  # it is closing, and has not said so yet
            self.left()

    def refuse(self, status: int, headers: Headers, body: bytes) -> None:
        if not self._started:
            self.start(status, headers, body, last=True)

    @property
    def started(self) -> bool:
        return self._started

    def keep(self, piece: bytes) -> bool:
        """Hold it, of the request's body, unless all requests together would hold too much."""
        size = len(piece)
        if not self._buffered.take(size):
            return False
        self.held += size
        if not self._body:
            self._body = piece
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)  # pieces may be tiny, and as objects many times as large
            self._body += piece
        return True

    def take_body(self) -> bytes:
        """All that was kept. It counts as held until the end."""
        body, self._body = self._body, b""
        return bytes(body)

    def let_go(self) -> None:
        """The request's body is needed no more."""
        self._body = b""
        if self.held:
            self._buffered.held -= self.held
            self.held = 0

    def break_off(self, chunk: bytes) -> None:
        if chunk:
            self.write(chunk, last=False)
        self.close()
        self.disconnected = True
        self._transport.close()

    def push(self) -> None:
        pass

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
        if self.held:
            self.let_go()
        if not self.keep_alive:
            self._protocol.hang_up()
        self._protocol.on_response_complete()
