"""The connections to one engine."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from router.proxy.upstream import ConnectFailed, Dropped, Upstream

IDLE_SECONDS = 3.0
"""Engines run uvicorn, which closes an idle connection after five: an older one may close just as we write."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. ``first_byte`` bears a long prefill in a full queue, ``between`` a long pause in an answer."""

    connect: float = 5.0
    first_byte: float = 600.0
    between: float = 300.0


class Pool:
    def __init__(self, base_url: str, timeouts: Timeouts) -> None:
        parts = urlsplit(base_url)
        self.host = parts.netloc.encode()
        self._address = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._timeouts = timeouts
        self._idle: list[Upstream] = []
        self._busy: set[Upstream] = set()

    async def exchange(self, head: bytes, body: bytes) -> Upstream:
        """Send a request and return the connection with the head of its answer. Give it back with ``release``.

        A connection that was kept and turns out closed is replaced: the engine has not seen the request.
        """
        while (kept := self._kept()) is not None:
            try:
                return await self._send(kept, head, body)
            except Dropped:
                continue
        return await self._send(await self._connect(), head, body)

    def release(self, upstream: Upstream) -> None:
        """Keep it for the next request, or close it if its answer was not read to the end."""
        self._busy.discard(upstream)
        if upstream.reusable:
            self._idle.append(upstream)
        else:
            upstream.abort()

    def close(self) -> None:
        for upstream in (*self._idle, *self._busy):
            upstream.abort()
        self._idle.clear()

    @property
    def open(self) -> int:
        """Connections now in use or kept."""
        return len(self._busy) + len(self._idle)

    def drop_idle(self) -> None:
        """Close what was not used for a while."""
        now = asyncio.get_running_loop().time()
        fresh = [one for one in self._idle if one.reusable and now - one.idle_since < IDLE_SECONDS]
        for upstream in self._idle:
            if upstream not in fresh:
                upstream.abort()
        self._idle = fresh

    async def _send(self, upstream: Upstream, head: bytes, body: bytes) -> Upstream:
        self._busy.add(upstream)
        try:
            await upstream.send(head, body)
        except BaseException:
            self._busy.discard(upstream)
            upstream.abort()
            raise
        return upstream

    def _kept(self) -> Upstream | None:
        """The one used last, if it is fresh; older ones are older still."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            upstream = self._idle.pop()
            if upstream.reusable and now - upstream.idle_since < IDLE_SECONDS:
                return upstream
            upstream.abort()
        return None

    async def _connect(self) -> Upstream:
        loop = asyncio.get_running_loop()
        timeouts = self._timeouts
        try:
            async with asyncio.timeout(timeouts.connect):
                _, upstream = await loop.create_connection(
                    lambda: Upstream(loop, timeouts.first_byte, timeouts.between),
                    self._address,
                    self._port,
                    ssl=self._ssl,
                )
        except TimeoutError:
            raise ConnectFailed(f"no connection within {timeouts.connect:g} s") from None
        except OSError as refused:
            raise ConnectFailed(refused.strerror or str(refused)) from refused
        return upstream
