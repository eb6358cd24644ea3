"""Connections that have ended are gone at once: a collector that looks seldom would let them pile up."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.proxy.upstream import Upstream
from router.server import server
from router.server.door import DirectDoor
from router.server.protocol import DirectProtocol
from tests.router.gateway import until
from tests.router.proxy.scripted import Received, chunk, raw, scripted

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("direct_door")]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = {"model": "one", "stream": True}


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> list[type]:
    return sorted(
        (type(one) for one in gc.get_objects() if isinstance(one, DirectProtocol | DirectDoor | Upstream)), key=str
    )


@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n"], ids=["left", "whole"])
async def test_nothing_is_left_of_a_connection(tmp_path: Path, no_collector: None, end: bytes) -> None:
    """Neither of the client's nor, if the answer did not come to its end, of the engine's."""

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        for piece in (HEAD, chunk(b"one"), chunk(b"two"), chunk(b"three"), end):
            writer.write(piece)
            await asyncio.sleep(0.01)

    async with scripted(tmp_path, script) as (gateway, _):
        before = alive()
        for _ in range(3):
            async with raw(gateway) as client:
                await client.post("/v1/completions", BODY)
                await client.reader.readuntil(b"three\r\n" + end)
        kept: list[type] = [Upstream] if end else []
        await until(lambda: alive() == sorted(before + kept, key=str))


async def test_the_patrol_keeps_none_that_it_has_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps most of the time, and there may be no other to look at for long."""
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.0)
    looked = asyncio.Event()

    class Connection:
        def look(self, now: float) -> None:
            looked.set()

    connections = {Connection()}
    (left,) = (weakref.ref(one) for one in connections)
    looking = asyncio.create_task(server.patrol(connections))
    await looked.wait()
    connections.clear()
    assert left() is None
    looking.cancel()
