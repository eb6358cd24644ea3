"""The connections to one engine."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Collection
from time import monotonic
from urllib.parse import urlsplit

from controller.config.schema import TimeoutSection
from router.proxy.upstream import ConnectFailed, Silent, Stopped, Upstream

IDLE_SECONDS = 3.0
"""Engines run uvicorn, which closes an idle connection after five: an older one may close just as we write."""


def sweep_seconds(timeouts: TimeoutSection) -> float:
    """How often to look for connections that were silent for too long."""
    return min(1.0, timeouts.first_byte / 4, timeouts.idle / 4, (timeouts.total or 4) / 4)


async def keep_sweeping(pools: Collection[Pool]) -> None:
    """Sweep all of them as often as the most impatient one wants it. Runs until cancelled."""
    while True:
        seconds, began = min((sweep_seconds(pool.timeouts) for pool in pools), default=1.0), monotonic()
        await asyncio.sleep(seconds)
        late = max(0.0, monotonic() - began - seconds)
        for pool in list(pools):
            if pool.open:
                pool.sweep(late)


class Pool:
    def __init__(self, base_url: str, timeouts: TimeoutSection) -> None:
        parts = urlsplit(base_url)
        self.host = parts.netloc.encode()
        self.timeouts = timeouts
        self._address = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._idle: list[Upstream] = []
        self._busy: set[Upstream] = set()

    @property
    def open(self) -> int:
        """Connections now in use or kept."""
        return len(self._busy) + len(self._idle)

    def kept(self) -> Upstream | None:
        """A connection that was used lately. The one used last is freshest: if it is too old, all are."""
        while self._idle:
            upstream = self._idle.pop()
            if upstream.reusable and monotonic() - upstream.last_byte < IDLE_SECONDS:
                self._busy.add(upstream)
                return upstream
            upstream.abort()
        return None

    async def connect(self) -> Upstream:
        """A new connection. Raises ``ConnectFailed``."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.timeouts.connect):
                _, upstream = await loop.create_connection(Upstream, self._address, self._port, ssl=self._ssl)
        except TimeoutError:
            raise ConnectFailed(f"no connection within {self.timeouts.connect:g} s") from None
        except OSError as refused:
            raise ConnectFailed(refused.strerror or str(refused)) from refused
        self._busy.add(upstream)
        return upstream

    def release(self, upstream: Upstream) -> None:
        """Keep it for the next request, or close it if its answer did not come to its end."""
        self._busy.discard(upstream)
        if upstream.reusable:
            self._idle.append(upstream)
        else:
            upstream.abort()

    def sweep(self, late: float = 0.0) -> None:
        """Close what nobody used lately, and give up on answers that have fallen silent.

        ``late``: for so many seconds the gateway itself was held up, or stopped, and may have to read what came.
        """
        now = monotonic()
        self._drop_idle(now)
        for upstream in list(self._busy):
            upstream.excuse(late, now)
            # Engines send the head of a stream at once, and then nothing until the prompt is read.
            usual = self.timeouts.idle if upstream.body_begun else self.timeouts.first_byte
            limit = min(usual, upstream.most_silence)
            if upstream.silence(now) > limit:
                upstream.fail(Silent(f"it sent nothing for {limit:g} s"))
            elif self.timeouts.total is not None and now - upstream.sent_at > self.timeouts.total:
                upstream.fail(Silent(f"it was not done after {self.timeouts.total:g} s"))

    def close(self) -> None:
        """At the end of the gateway: who still waits for an answer is told."""
        for upstream in self._idle:
            upstream.abort()
        self._idle.clear()
        for upstream in list(self._busy):
            upstream.fail(Stopped("the gateway is being stopped"))

    def _drop_idle(self, now: float) -> None:
        fresh = []
        for upstream in self._idle:
            if upstream.reusable and now - upstream.last_byte < IDLE_SECONDS:
                fresh.append(upstream)
            else:
                upstream.abort()
        self._idle = fresh
