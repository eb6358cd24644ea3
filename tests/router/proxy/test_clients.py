"""Clients of every habit: old, in a hurry, careful; and engines with odd statuses."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import pytest

from tests.router.gateway import until
from tests.router.proxy.scripted import Received, answer, chunk, raw, scripted, unchunked

pytestmark = pytest.mark.anyio

BODY = b'{"model": "one"}'
HEAD = f"POST /v1/completions HTTP/1.1\nhost: x\ncontent-length: {len(BODY)}"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"one") + chunk(b"two") + b"0\r\n\r\n"


@pytest.mark.parametrize("kept", ["", "\nconnection: keep-alive"], ids=["", "kept"])
@pytest.mark.parametrize("host", ["", "\nhost: x"], ids=["", "host"])
async def test_old_clients_get_no_chunks(tmp_path: Path, host: str, kept: str) -> None:
    """HTTP/1.0 is told the end by the end of its connection, also if it would rather keep that."""
    async with scripted(tmp_path, CHUNKED) as (gateway, _), raw(gateway) as client:
        await client.ask(HEAD.replace("HTTP/1.1\nhost: x", f"HTTP/1.0{host}{kept}"), BODY)
        head = await client.head()
        assert "transfer-encoding" not in head
        assert "connection: close" in head
        assert await client.rest() == b"onetwo"
        await until(lambda: gateway.in_flight == 0)


async def test_nor_where_the_answer_is_uvicorns(tmp_path: Path) -> None:
    """As to a body that is compressed, here one without a length and one with it."""
    packed = gzip.compress(BODY)
    head = f"POST /v1/completions HTTP/1.0\nhost: x\ncontent-encoding: gzip\ncontent-length: {len(packed)}"
    for said, framing in ((CHUNKED, "connection: close"), (answer(b"onetwo"), "content-length: 6")):
        async with scripted(tmp_path, said) as (gateway, _), raw(gateway) as client:
            await client.ask(head, packed)
            found = await client.head()
            assert "transfer-encoding" not in found
            assert framing in found
            assert await client.rest() == b"onetwo"


async def test_clients_that_close_are_closed(tmp_path: Path) -> None:
    """Connection: close is kept, and the answer is whole."""
    async with scripted(tmp_path, CHUNKED) as (gateway, _), raw(gateway) as client:
        await client.ask(HEAD + "\nconnection: close", BODY)
        assert "connection: close" in await client.head()
        assert unchunked(await client.rest()) == (b"onetwo", True)


async def test_requests_sent_ahead_are_answered_in_turn(tmp_path: Path) -> None:
    """Pipelining, among them a refusal and a page of the gateway's own."""

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        writer.write(answer(request.target[-1:]))

    async with scripted(tmp_path, script) as (gateway, _), raw(gateway) as client:
        asked = b""
        for turn in range(3):
            asked += (
                HEAD.replace("/completions", f"/completions?{turn}").replace("\n", "\r\n").encode() + b"\r\n\r\n" + BODY
            )
            asked += b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
            asked += b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
        client.writer.write(asked)
        for turn in range(3):
            for status, content in ((200, str(turn)), (200, "healthy"), (400, "missing_parameter")):
                head = await client.head()
                assert head.startswith(f"http/1.1 {status}")
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                assert content in (await client.reader.readexactly(length)).decode()
        assert gateway.live.traffic.models["one"].total == 3
        assert gateway.in_flight == 0


async def test_careful_clients_are_told_to_go_on(tmp_path: Path) -> None:
    """Expect: 100-continue is answered before the body comes, and is not for the engine."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        await client.ask(HEAD + "\nexpect: 100-continue")
        assert (await client.head()).startswith("http/1.1 100")
        client.writer.write(BODY)
        assert (await client.head()).startswith("http/1.1 200")
        assert engine.received[0].all("expect") == []


async def test_body_in_crumbs(tmp_path: Path) -> None:
    """A body that comes byte by byte is one body."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        await client.ask(HEAD)
        for byte in BODY:
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
        assert (await client.head()).startswith("http/1.1 200")
        assert engine.received[0].body == BODY


@pytest.mark.usefixtures("each_door")
@pytest.mark.parametrize("status", [201, 299, 418, 499, 599])
async def test_odd_statuses_pass(tmp_path: Path, status: int) -> None:
    """Whether they have a name or not."""
    async with scripted(tmp_path, answer(b"{}", f"{status} Odd")) as (gateway, _):
        for _ in range(2):
            assert (await gateway.client.post("/v1/completions", content=BODY)).status_code == status


@pytest.mark.usefixtures("each_door")
@pytest.mark.parametrize("status", ["600 Odd", "999 Odd", "101 Switching Protocols"])
async def test_statuses_that_are_none_are_the_engines_failure(tmp_path: Path, status: str) -> None:
    """502, and nothing hangs."""
    async with scripted(tmp_path, answer(b"{}", status)) as (gateway, _):
        reply = await gateway.client.post("/v1/completions", content=BODY)
        assert reply.status_code == 502
        assert gateway.in_flight == 0


async def test_head_that_never_ends_is_the_engines_failure(tmp_path: Path) -> None:
    """502 after 64 kB of headers, not memory without bound."""

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100_000):
            writer.write(b"x-%d: %b\r\n" % (number, b"y" * 100))
            await writer.drain()

    async with scripted(tmp_path, script) as (gateway, _):
        assert (await gateway.client.post("/v1/completions", content=BODY)).status_code == 502


async def test_a_client_that_leaves_with_its_next_request_sent(tmp_path: Path) -> None:
    """Ahead of the answer it was given: that it waits for its turn hides nothing."""
    asked, over = asyncio.Event(), asyncio.Event()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await over.wait()

    async with scripted(tmp_path, script) as (gateway, _), raw(gateway) as client:
        await client.ask(HEAD, BODY)
        await client.ask("GET /health HTTP/1.1\nhost: x")
        await asked.wait()
        client.writer.transport.abort()
        try:
            await until(lambda: gateway.in_flight == 0)
        finally:
            over.set()
