"""HTTP/1.1 at the least cost: one kept connection, one request at a time, no task and no buffer for each chunk.

httpx2 costs six times the CPU for a streamed chunk and thirty times for a short request (docs/benchmarking.md), which a
client that shares its machine with what it measures cannot afford.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

import httptools

from benchmarks.answer import Answer

IDLE_SECONDS = 2.0
"""A connection that rested longer is not used again: the server may be closing it (uvicorn after 5 s)."""


class Broken(Exception):
    """The server closed or reset the connection before the answer was whole, or did not speak HTTP."""


class Connection(asyncio.Protocol):
    """``exchange`` sends one request; ``reusable`` says whether another may follow."""

    def __init__(self) -> None:
        self.reusable = True
        self.rested_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._ended: asyncio.Future[None] | None = None
        self._now = 0.0
        self._content_type = b""
        self._framed = False
        self._headers_seen = False

    async def exchange(self, request: bytes, answer: Answer) -> None:
        """Fill ``answer``. Raises ``Broken``; a cancelled exchange closes the connection."""
        if not self.reusable:
            raise Broken("connection closed")
        self._answer = answer
        self._ended = asyncio.get_running_loop().create_future()
        self._content_type, self._framed, self._headers_seen = b"", False, False
        answer.sent = time.perf_counter()
        self._transport.write(request)
        try:
            await self._ended
        except BaseException:
            self.close()
            raise
        finally:
            self._answer = self._ended = None

    def close(self) -> None:
        self.reusable = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._break("answer that is not HTTP")
            self._transport.abort()

    def connection_lost(self, problem: Exception | None) -> None:
        self.reusable = False
        if self._headers_seen and not self._framed and problem is None:
            self._finish(time.perf_counter())  # a body without length ends with the connection
        else:
            self._break("connection reset" if problem else "connection closed")

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"content-type":
            self._content_type = value
        elif lower in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._answer is not None and status >= 200:
            self._headers_seen = True
            self._answer.begin(status, self._content_type)

    def on_body(self, body: bytes) -> None:
        if self._answer is not None:
            self._answer.feed(body, self._now)

    def on_message_complete(self) -> None:
        if not self._headers_seen:
            return  # 1xx: the answer proper follows
        if not self._parser.should_keep_alive():
            self.reusable = False
        self._finish(self._now)

    def _finish(self, now: float) -> None:
        if self._ended is not None and not self._ended.done():
            assert self._answer is not None
            self._answer.end(now)
            self.rested_since = now
            self._ended.set_result(None)

    def _break(self, reason: str) -> None:
        self.reusable = False
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(Broken(reason))


class Server:
    """One address and the connections to it. ``post`` raises nothing of its own: what went wrong is in the answer."""

    def __init__(self, base_url: str, path: str, headers: Mapping[str, str], timeout: float) -> None:
        parts = urlsplit(base_url)
        assert parts.hostname is not None
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._timeout = timeout
        self._idle: deque[Connection] = deque()
        given = {"host": parts.netloc.rpartition("@")[2], "content-type": "application/json", **headers}
        lines = [f"POST {parts.path}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
        self._head = "\r\n".join([*lines, "content-length: "]).encode("latin-1")

    async def open(self, number: int) -> None:
        """Make ``number`` connections beforehand. Raises ``OSError``."""
        self._idle.extend(await asyncio.gather(*(self._connect() for _ in range(number))))
        for connection in self._idle:
            connection.rested_since = time.perf_counter()

    async def post(self, body: bytes, answer: Answer) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                connection = self._take() or await self._connect()
                await connection.exchange(b"%s%d\r\n\r\n%s" % (self._head, len(body), body), answer)
        except Broken as broken:
            answer.fail(str(broken), time.perf_counter())
        except TimeoutError:
            answer.fail("no answer in time", time.perf_counter())
        except OSError as refused:
            answer.fail(f"cannot connect: {refused.strerror or refused}", time.perf_counter())
        else:
            if connection.reusable:
                self._idle.append(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Connection | None:
        """The one used last, so that the surplus grows old and goes."""
        now = time.perf_counter()
        while self._idle and (not self._idle[0].reusable or now - self._idle[0].rested_since > IDLE_SECONDS):
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        return connection
