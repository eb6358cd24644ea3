"""An engine that keeps every request as it came and answers what a test wrote, byte by byte; and a raw client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httptools

from tests.ports import free_port
from tests.router.gateway import Gateway, Sim, gateway

LIST = b'{"object":"list","data":[]}'


@dataclass
class Received:
    """One request as it came. ``connection`` numbers the connections from 1."""

    connection: int
    target: bytes = b""
    method: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def all(self, name: str) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name.encode()]

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.pieces.append(data)

    def on_message_complete(self) -> None:
        self.complete = True


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def unchunked(data: bytes) -> tuple[bytes, bool]:
    """A body sent in chunks, and whether it came to its end."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        if size == b"0":
            return body, data == b"\r\n"
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return body, False


Script = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Scripted:
    """``script`` answers each POST; all else gets an empty list. ``open``: connections that had a POST."""

    def __init__(self, script: Script | bytes) -> None:
        self.received: list[Received] = []
        self.connections = 0
        self.open: set[int] = set()
        self._script = script

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while (request := await _read(reader, number)) is not None:
                if request.method == b"GET":
                    writer.write(answer(LIST))
                    continue
                self.open.add(number)
                self.received.append(request)
                if isinstance(self._script, bytes):
                    writer.write(self._script)
                else:
                    await self._script(request, writer)
                await writer.drain()
        except OSError:
            pass
        finally:
            self.open.discard(number)
            writer.close()


async def _read(reader: asyncio.StreamReader, number: int) -> Received | None:
    request = Received(number)
    parser = httptools.HttpRequestParser(request)
    while not request.complete:
        data = await reader.read(65_536)
        if not data:
            return None
        parser.feed_data(data)
    request.method = parser.get_method()
    return request


@dataclass(frozen=True)
class _Entry:
    """What ``gateway`` wants of an engine: its entry in the YAML."""

    yaml: Mapping[str, Any]

    @property
    def spec(self) -> _Entry:
        return self

    url: str = ""

    def entry(self, url: str) -> dict[str, Any]:
        return {"name": "one", "model": "one", "engine": "openai", "url": url, **self.yaml}


@contextlib.asynccontextmanager
async def scripted(
    folder: Path,
    script: Script | bytes,
    yaml: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    **sections: Any,
) -> AsyncIterator[tuple[Gateway, Scripted]]:
    """A gateway over one such engine, called ``one``; ``yaml`` is added to its entry."""
    async with replicas(folder, {"one": script}, yaml, environment, host, tls, **sections) as (running, engines):
        yield running, engines["one"]


@contextlib.asynccontextmanager
async def replicas(
    folder: Path,
    scripts: Mapping[str, Script | bytes],
    yaml: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    **sections: Any,
) -> AsyncIterator[tuple[Gateway, dict[str, Scripted]]]:
    """A gateway over several such engines, by name, that serve the model ``one``. Asked in turn."""
    engines = {name: Scripted(script) for name, script in scripts.items()}
    entries: dict[str, Sim] = {}
    async with contextlib.AsyncExitStack() as stack:
        for name, engine in engines.items():
            port = free_port()
            server = await asyncio.start_server(engine.serve, host, port, ssl=tls)
            stack.callback(server.close)
            url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
            entries[name] = cast(Sim, _Entry({"name": name, **(yaml or {})}, url))
        yield await stack.enter_async_context(gateway(folder, entries, environment, **sections)), engines


class Raw:
    """A client that writes and reads bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, head: str, body: bytes = b"") -> None:
        self.writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        await self.writer.drain()

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        data = json.dumps(body).encode()
        await self.ask(f"POST {path} HTTP/1.1\nhost: x\ncontent-length: {len(data)}", data)

    async def head(self, seconds: float = 10.0) -> str:
        async with asyncio.timeout(seconds):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()

    async def rest(self, seconds: float = 10.0) -> bytes:
        """All that comes until the connection is closed."""
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


def raw(gateway: Gateway) -> contextlib.AbstractAsyncContextManager[Raw]:
    return raw_at(int(gateway.url.rstrip("/").rsplit(":", 1)[1]))


@contextlib.asynccontextmanager
async def raw_at(port: int) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
