"""A small GET, on a connection of its own: cheap enough to look at every engine of a large fleet again and again.

What httpx2 needs for it grows with the number of engines, for it searches all its connections for each call.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httptools

MOST_BYTES = 65_536
"""Of an answer. What comes after is not read: who looks wants a status and a few words."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    def field(self, key: str) -> Any:
        """One value of a JSON object; None when it is not there, or the body is no such thing."""
        try:
            return json.loads(self.body)[key]
        except (ValueError, LookupError, TypeError):
            return None


class Address:
    """Where an engine listens, and the key it asks for."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        parts = urlsplit(base_url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._path = parts.path
        self._ssl = _trust() if parts.scheme == "https" else None
        key = f"authorization: Bearer {api_key}\r\n" if api_key else ""
        self._rest = f" HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\n{key}connection: close\r\n\r\n"

    async def get(self, path: str, seconds: float) -> Answer:
        """Raises ``TimeoutError`` after ``seconds``, and ``OSError`` when nobody answers as HTTP wants it."""
        loop = asyncio.get_running_loop()
        request = f"GET {self._path}{path}{self._rest}".encode()
        async with asyncio.timeout(seconds):
            transport, glance = await loop.create_connection(
                lambda: Glance(loop.create_future()), self._host, self._port, ssl=self._ssl
            )
            try:
                transport.write(request)
                return await glance.answer
            finally:
                transport.abort()


class Glance(asyncio.Protocol):
    """The answer's way in."""

    def __init__(self, answer: asyncio.Future[Answer]) -> None:
        self.answer = answer
        self._parser: Any = httptools.HttpResponseParser(self)
        self._status = 0
        self._body = b""
        self._unread = MOST_BYTES

    def data_received(self, data: bytes) -> None:
        self._unread -= len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as garbage:
            self._fail(f"it is no HTTP ({garbage})")
            return
        if self._unread < 0:
            self._done()

    def connection_lost(self, error: Exception | None) -> None:
        if error is None and self._status:
            self._done()  # such a body ends with its connection; one that was cut short is no JSON
        self._fail(str(error or "it closed the connection without an answer"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._status = status if status >= 200 else 0  # those below announce an answer, and are none

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        if self._status:
            self._done()

    def _done(self) -> None:
        if not self.answer.done():
            self.answer.set_result(Answer(self._status, self._body))

    def _fail(self, problem: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionError(problem))
            self.answer.exception()  # whoever asked may have been cancelled while it connected: not for asyncio to tell


@lru_cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
