"""A connection that listens no more."""

from __future__ import annotations

import asyncio

from router.server.limits import LINGER_BYTES


class Deaf:
    """In place of the parser: whatever still comes is no request, and a while of it is enough."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._size = 0

    def feed_data(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > LINGER_BYTES:
            self._transport.abort()
