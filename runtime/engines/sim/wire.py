"""The connection below HTTP, for faults no web framework offers: resets, cut streams, garbage."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.engines.sim.errors import ApiError

_EXTENSION = "torpor.sim.wire"


class Connections:
    """How many are open."""

    def __init__(self) -> None:
        self.count = 0


class Wire:
    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def close(self) -> None:
        """Send what is written, then FIN."""
        self._transport.close()

    def reset(self) -> None:
        """Send RST: the other side's next read fails with ECONNRESET."""
        linger = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()


def wire_of(scope: Scope) -> Wire:
    wire = scope.get("extensions", {}).get(_EXTENSION)
    if wire is None:
        raise ApiError(501, "this fault needs the sim's own server (runtime.engines.sim.server)")
    return cast(Wire, wire)


def protocol_class(connections: Connections) -> type[HttpToolsProtocol]:
    """uvicorn's protocol, counting connections and handing its transport to the application."""

    class SimProtocol(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            connections.count += 1
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.count -= 1
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.scope["extensions"] = {_EXTENSION: Wire(self.transport)}  # type: ignore[dict-item]

    return SimProtocol
