"""Engines that write their answers in odd pieces, and clients that send odd bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.router.gateway import Spec, until, whole
from tests.router.proxy.scripted import Received, answer, chunk, raw, scripted, unchunked

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_door")]

BODY = b'{"model": "one"}'
HEAD = f"POST /v1/completions HTTP/1.1\nhost: x\ncontent-length: {len(BODY)}"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
Script = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def slowly(*pieces: bytes) -> Script:
    """Each piece is a read of its own."""

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002)

    return script


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_a_chunked_answer_in_any_pieces_is_whole(tmp_path: Path, size: int) -> None:
    """Reads that bring only the frame of a chunk, or half a head, do not end the answer."""
    events = [b'data: {"n":%d}\n\n' % number for number in range(6)]
    wire = STREAM + b"".join(map(chunk, events)) + b"0\r\n\r\n"
    async with scripted(tmp_path, slowly(*pieces_of(wire, size))) as (gateway, _), raw(gateway) as client:
        await client.ask(HEAD + "\nconnection: close", BODY)
        await client.head()
        assert unchunked(await client.rest()) == (b"".join(events), True)
        await until(lambda: gateway.in_flight == 0)
        assert gateway.live.traffic.models["one"].outcomes["successful"] == 1  # type: ignore[index]


async def test_size_data_and_end_of_a_chunk_apart(tmp_path: Path) -> None:
    """As an engine with unbuffered writes sends them."""
    events = [b'data: {"n":%d}\n\n' % number for number in range(4)]
    pieces = [STREAM]
    for event in events:
        pieces += [b"%x\r\n" % len(event), event, b"\r\n"]
    async with scripted(tmp_path, slowly(*pieces, b"0\r\n\r\n")) as (gateway, _), raw(gateway) as client:
        await client.ask(HEAD + "\nconnection: close", BODY)
        await client.head()
        assert unchunked(await client.rest()) == (b"".join(events), True)


@pytest.mark.parametrize("modern", [True, False])
async def test_chunks_in_reads_of_their_own(tmp_path: Path, modern: bool) -> None:
    """Sizes in capitals as well. Frames go only to who was promised them; uvicorn alone promises them to HTTP/1.0."""
    events = [b"data: " + b"x" * size + b"\n\n" for size in (1, 2, 165, 163, 20, 4_000, 30)]
    frames = [b"%X\r\n%b\r\n" % (len(event), event) for event in events]
    async with scripted(tmp_path, slowly(STREAM, *frames, b"0\r\n\r\n")) as (gateway, _), raw(gateway) as client:
        await client.ask(HEAD + "\nconnection: close" if modern else HEAD.replace("1.1", "1.0"), BODY)
        framed = "transfer-encoding: chunked" in (await client.head()).lower()
        said = await client.rest()
        assert framed or not modern
        assert (unchunked(said) if framed else (said, True)) == (b"".join(events), True)


async def test_what_follows_an_answer_does_not_change_it(tmp_path: Path) -> None:
    """A second answer, unasked, in the same write: the first is given, the connection is not used again."""
    first = answer(b'{"first": true}')
    script = slowly(first + answer(b'{"second": true}', "500 Internal Server Error"))
    async with scripted(tmp_path, script) as (gateway, engine):
        for _ in range(2):
            reply = await gateway.complete("one")
            assert (reply.status_code, reply.json()) == (200, {"first": True})
        assert len({request.connection for request in engine.received}) == 2


@pytest.mark.parametrize("after", [b"\r\nX", b"GET", b"\x00\x01"])
async def test_leaving_is_noticed_whatever_was_sent_before(tmp_path: Path, after: bytes) -> None:
    """Bytes after a request, valid or not, and then gone: the engine stops, and everything is counted out."""
    async with whole(tmp_path, Spec("one")) as gateway:
        sim = gateway.sims["one"]
        sim.fault(silent_after_tokens={"tokens": 1, "times": 1})
        async with raw(gateway) as client:
            body = json.dumps({"model": "one", "prompt": "x", "stream": True, "max_tokens": 50}).encode()
            head = (
                f"POST /v1/completions HTTP/1.1\nhost: x\ncontent-type: application/json\ncontent-length: {len(body)}"
            )
            await client.ask(head, body)
            await until(lambda: sim.running == 1)
            client.writer.write(after)
        await until(lambda: sim.running == 0 and gateway.in_flight == 0)


@pytest.mark.parametrize(
    "body", [b'{"model": "\xff"}', b'{"model": "alias", "\xff": 1}', b'{"model": "alias", "a": "\xff"}']
)
async def test_text_that_is_none_is_refused(tmp_path: Path, body: bytes) -> None:
    """Not UTF-8: 400 in OpenAI's shape, on a new connection and on a kept one, and nothing stays counted in."""
    async with whole(tmp_path, Spec("one", yaml={"aliases": ["alias"]})) as gateway:
        for _ in range(3):
            reply = await gateway.client.post(
                "/v1/completions", content=body, headers={"content-type": "application/json"}
            )
            assert reply.status_code == 400, reply.text
            assert reply.json()["error"]["type"]
            assert (await gateway.complete("one")).status_code == 200
        assert gateway.in_flight == 0
