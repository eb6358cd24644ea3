"""A web server that can be told to fail: it cuts, lies, ignores ranges, redirects, waits."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

SLICE = 64 << 10
"""Bytes written at once; after each, whoever wants to do something at that moment is called."""


@dataclass
class Page:
    """``cuts``: after how many bytes of its body each next answer breaks off. ``wants``: a token."""

    body: bytes = b""
    etag: str | None = '"1"'
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    location: str = ""
    ranges: bool = True
    framing: str = "length"
    claimed: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    wants: str | None = None
    hold: asyncio.Event | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Asked:
    path: str
    headers: dict[str, str]


class Web:
    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[Asked] = []
        self.missing = Page(status=404)
        self.on_slice: Callable[[], None] = lambda: None
        self.port = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                pairs = (line.split(": ", 1) for line in lines)
                asked = Asked(first.split()[1], {name.lower(): value for name, value in pairs})
                self.asked.append(asked)
                await self._answer(asked, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        page = self.pages.get(asked.path.partition("?")[0], self.missing)
        if page.wants is not None and asked.headers.get("authorization") != f"Bearer {page.wants}":
            page = self.missing
        status, start, end = page.status, 0, len(page.body)
        headers = dict(page.headers)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
        if wanted and page.ranges and status == 200:
            start = int(wanted[1])
            status, end = 206, min(end, int(wanted[2]) + 1) if wanted[2] else end
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(page.body)}"
            if start >= len(page.body):
                status, start, end, headers["Content-Range"] = 416, 0, 0, f"bytes */{len(page.body)}"
        if page.etag:
            headers["ETag"] = page.etag
        if page.location:
            headers["Location"] = page.location
        body = page.body[start:end]
        if page.framing == "length":
            headers["Content-Length"] = str(len(body) if page.claimed is None or status != 200 else page.claimed)
        elif page.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        writer.write(f"HTTP/1.1 {status} x\r\n".encode())
        writer.write("".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n")
        await self._send(page, body, writer)

    async def _send(self, page: Page, body: bytes, writer: asyncio.StreamWriter) -> None:
        cut = page.cuts.pop(0) if page.cuts and len(body) > 1 else None
        if cut is not None:
            body = body[:cut]
        if page.framing == "chunked":
            body = b"%x\r\n%b\r\n" % (len(body), body) + (b"0\r\n\r\n" if cut is None else b"")
        if page.hold is not None and len(body) > 1:
            writer.write(body[: len(body) // 2])
            await writer.drain()
            page.held.set()
            await page.hold.wait()
            body = body[len(body) // 2 :]
        for at in range(0, len(body), SLICE):
            writer.write(body[at : at + SLICE])
            await writer.drain()
            self.on_slice()
        if cut is not None or page.framing == "close" or page.claimed is not None:
            raise ConnectionResetError


@contextlib.asynccontextmanager
async def web() -> AsyncIterator[Web]:
    served = Web()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(served.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 20)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
