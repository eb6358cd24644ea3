"""The clients of ``overhead``: as cheap as Python gets, because they share a core with the engine.

``connection`` parses and times every token, which is more than is needed here. These look for the end of an answer and
count its events: one too few, or a status other than 200, is an error.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from benchmarks.measure import Distribution

PROMPT = "The gateway passes on what it is given, word for word, and nothing else. " * 11
EVENT = b"data: {"
END = b"\r\n0\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
GRACE_SECONDS = 60.0


@dataclass
class Seen:
    """``units``: requests answered, or events of streams. Seconds."""

    requests: int = 0
    units: int = 0
    seconds: float = 0.0
    latency: Distribution = field(default_factory=Distribution)
    ttft: Distribution = field(default_factory=Distribution)
    errors: Counter[str] = field(default_factory=Counter)


def request(model: str, **more: Any) -> bytes:
    """A chat request of about 900 bytes of body."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": PROMPT}], **more}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\naccept: */*\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has been answered, until ``stop``. ``tokens`` None: no stream."""

    def __init__(self, asked: bytes, tokens: int | None, seen: Seen, stop: float) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked = asked
        self._tokens = tokens
        self._seen = seen
        self._stop = stop
        self._received = b""
        self._size = 0
        self._events = 0
        self._started = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self._received, self._size, self._events, self._started = b"", 0, 0, False
        self._sent = time.perf_counter()
        self._transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        if self._started and self._tokens is not None:
            self._stream(data)
            return
        self._received += data
        if not self._started:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            if self._received[9:12] != b"200":
                self._fail(f"HTTP {self._received[9:12].decode('latin-1')}")
                return
            length = LENGTH.search(self._received, 0, end)
            self._size = end + 4 + int(length[1]) if length else 0
            self._started = True
            if self._tokens is not None:
                rest, self._received = self._received[end + 2 :], b""
                self._stream(rest)
                return
        if len(self._received) >= self._size if self._size else self._received.endswith(END):
            self._seen.units += 1
            self._answered()

    def _stream(self, data: bytes) -> None:
        data = self._received + data
        events = data.count(EVENT)
        if events and not self._events:
            self._seen.ttft.add(time.perf_counter() - self._sent)
        self._events += events
        if not data.endswith(END):
            self._received = data[1 - len(EVENT) :]  # an event's beginning, perhaps, and too short to be a whole one
            return
        assert self._tokens is not None
        if self._events != self._tokens + 1:  # the last tells the usage
            self._fail("stream with too few events")
            return
        self._seen.units += self._tokens
        self._answered()

    def _answered(self) -> None:
        now = time.perf_counter()
        self._seen.requests += 1
        self._seen.latency.add(now - self._sent)
        if now < self._stop:
            self._ask()
        else:
            self._end()

    def _fail(self, problem: str) -> None:
        self._seen.errors[problem] += 1
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self._fail("connection lost")


async def flood(port: int, asked: Sequence[bytes], connections: int, tokens: int | None, seconds: float) -> Seen:
    """Start requests for ``seconds`` on ``connections`` at once, and wait for the answers to the last."""
    loop, seen = asyncio.get_running_loop(), Seen()
    began = time.perf_counter()
    stop = began + seconds
    clients: list[Client] = []

    def client() -> Client:
        clients.append(Client(asked[len(clients) % len(asked)], tokens, seen, stop))
        return clients[-1]

    await asyncio.gather(*(loop.create_connection(client, "127.0.0.1", port) for _ in range(connections)))
    try:
        async with asyncio.timeout(seconds + GRACE_SECONDS):
            await asyncio.gather(*(one.ended for one in clients))
    except TimeoutError:
        seen.errors["no answer in time"] += sum(not one.ended.done() for one in clients)
    seen.seconds = time.perf_counter() - began
    return seen


class Holder(asyncio.Protocol):
    """Opens one stream and keeps it. ``begun``: its first event has come."""

    def __init__(self, asked: bytes) -> None:
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked = asked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        if EVENT in data and not self.begun.done():
            self.begun.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_exception(ConnectionError("the stream ended before its first event"))


async def hold(port: int, asked: bytes, number: int, at_once: int = 100) -> list[Holder]:
    """Open ``number`` streams that stay open, and wait until each has begun. Raises ``OSError``, ``TimeoutError``."""
    loop, holders = asyncio.get_running_loop(), []
    async with asyncio.timeout(GRACE_SECONDS):
        for first in range(0, number, at_once):
            wanted = min(at_once, number - first)
            made = await asyncio.gather(
                *(loop.create_connection(lambda: Holder(asked), "127.0.0.1", port) for _ in range(wanted))
            )
            await asyncio.gather(*(holder.begun for _, holder in made))
            holders += [holder for _, holder in made]
    return holders
