"""One HTTP/1.1 connection to an engine, one exchange at a time.

UpstreamError
├── ConnectFailed     nothing was sent: the request may go elsewhere
├── Dropped           the connection ended before the first byte of an answer
├── Broken            it ended, or spoke garbage, in the middle of one
└── Silent            no byte came for too long
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import httptools

HIGH_WATER, LOW_WATER = 65_536, 16_384
"""Bytes waiting for a slow client at which the engine is paused, and at which it may go on."""

MAX_HEAD_BYTES = 65_536


class UpstreamError(Exception):
    pass


class ConnectFailed(UpstreamError):
    pass


class Dropped(UpstreamError):
    pass


class Broken(UpstreamError):
    pass


class Silent(UpstreamError):
    pass


class Upstream(asyncio.Protocol):
    """A connection, and the answer that is coming in on it. ``status`` and ``headers`` are there once ``send`` returns.

    ``first_byte`` and ``between``: seconds of silence that are borne before and during an answer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, first_byte: float, between: float) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = True
        self.idle_since = 0.0
        self._loop = loop
        self._first_byte = first_byte
        self._between = between
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._chunks: deque[bytes] = deque()
        self._arrived: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._head_bytes = 0
        self._started = False
        self._head_done = False
        self._framed = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_byte = 0.0

    # -- the exchange --------------------------------------------------------------------------------------------

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent on it."""
        transport = self._transport
        return self.complete and self._error is None and transport is not None and not transport.is_closing()

    async def send(self, head: bytes, body: bytes) -> None:
        """Send a request and wait for the head of its answer. Raises ``UpstreamError``."""
        if self._transport is None or not self.reusable:
            raise Dropped("the connection was closed by the engine")
        self._parser = httptools.HttpResponseParser(self)
        self.complete = self._started = self._head_done = self._framed = False
        self.headers = []
        self._head_bytes = 0
        self._last_byte = self._loop.time()
        self._timer = self._loop.call_later(self._first_byte, self._check_silence)
        self._transport.writelines((head, body))
        while not self._head_done:
            await self._wait()

    async def read(self) -> bytes:
        """The next piece of the body as it came; empty at its end. Raises ``UpstreamError``."""
        while not self._chunks:
            if self.complete:
                return b""
            await self._wait()
        chunk = self._chunks.popleft()
        self._buffered -= len(chunk)
        if self._paused and self._buffered <= LOW_WATER and self._transport is not None:
            self._paused = False
            self._last_byte = self._loop.time()  # the silence was ours
            self._transport.resume_reading()
        return chunk

    def abort(self) -> None:
        """Close now; an engine takes that as its client having left, and stops generating."""
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: UpstreamError) -> None:
        if self._error is None:
            self._error = error
        self._stop_timer()
        self._wake()
        if self._transport is not None:
            self._transport.abort()

    # -- the transport -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport

    def data_received(self, data: bytes) -> None:
        if self.complete:
            self._fail(Broken("the engine sent something that was not asked for"))
            return
        self._started = True
        self._last_byte = self._loop.time()
        if not self._head_done:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES + len(data):
                self._fail(Broken("the engine's headers are too long"))
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as garbage:
            self._fail(Broken(f"the engine did not speak HTTP: {garbage}"))
            return
        if self._arrived:
            # What one read brought goes on as one piece.
            chunk = self._arrived[0] if len(self._arrived) == 1 else b"".join(self._arrived)
            self._arrived.clear()
            self._chunks.append(chunk)
            self._buffered += len(chunk)
            if self._buffered > HIGH_WATER and not self._paused and not self.complete and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._stop_timer()
        if self.complete or self._error is not None:
            return
        if not self._started:
            self._error = Dropped("the engine closed the connection without an answer")
        elif error is None and self._head_done and not self._framed:
            self.complete = True  # such a body ends with its connection
        else:
            self._error = Broken("the engine closed the connection in the middle of its answer")
        self._wake()

    def _check_silence(self) -> None:
        limit = self._between if self._started else self._first_byte
        quiet = self._loop.time() - self._last_byte
        if self._paused or quiet < limit:
            pause = self._between if self._paused else limit - quiet
            self._timer = self._loop.call_later(pause, self._check_silence)
        else:
            self._fail(Silent(f"the engine sent nothing for {limit:g} s"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the parser ----------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []  # 100 Continue and its like announce an answer, and are none
            self._framed = False
            return
        self._framed = self._framed or self.status in (204, 304)
        self._head_done = True

    def on_body(self, data: bytes) -> None:
        self._arrived.append(data)

    def on_message_complete(self) -> None:
        if not self._head_done:
            return
        self.complete = True
        self._stop_timer()
        self.idle_since = self._loop.time()
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()
