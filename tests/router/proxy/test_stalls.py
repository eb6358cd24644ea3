"""Clients that stop in the middle, behind any ASGI server: our own server has limits of its own."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from router.proxy import body, door
from tests.router.gateway import until
from tests.router.proxy.scripted import Received, chunk, raw, scripted

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("asgi_door")]

BODY = b'{"model":"one"}'
HEAD = f"POST /v1/completions HTTP/1.1\nhost: x\ncontent-length: {len(BODY)}"


async def test_a_body_that_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """408, and the connection ends."""
    monkeypatch.setattr(body, "STALL_SECONDS", 0.1)
    async with scripted(tmp_path, b"") as (gateway, engine), raw(gateway) as client:
        await client.ask(HEAD, BODY[:-1])
        said = await client.rest()
        assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert said.lower().count(b"connection: close") == 1
        assert b'"request_timeout"' in said
        assert engine.received == []


async def test_a_client_that_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its engine is freed, and it is counted out."""
    monkeypatch.setattr(door, "STALL_SECONDS", 0.1)

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(chunk(b"x" * 65_536))
            await writer.drain()

    async with scripted(tmp_path, script) as (gateway, engine), raw(gateway) as client:
        sock: socket.socket = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.ask(HEAD, BODY)
        await until(lambda: len(engine.received) == 1)
        await until(lambda: gateway.in_flight == 0)
        await until(lambda: not engine.open)
        assert gateway.live.traffic.models["one"].statuses == {"4xx": 1}
