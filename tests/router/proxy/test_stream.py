"""Streams pass as they come, and one that breaks off says so."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.router.gateway import PATIENCE, Gateway, Spec, until, whole
from tests.router.proxy.scripted import Received, answer, chunk, raw, scripted, unchunked

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_door")]

SSE = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
CHUNKED = (SSE + "transfer-encoding: chunked\r\n\r\n").encode()
PATHS = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 6},
    "/v1/completions": {"prompt": "Once upon a time", "max_tokens": 6},
    "/v1/responses": {"input": "Once upon a time", "max_output_tokens": 6},
    "/v1/messages": {"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 6},
}


async def stats(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = (await gateway.client.get("/traffic/stats/one")).json()["model_stats"]
    return found


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_is_passed_on(tmp_path: Path, path: str) -> None:
    """With all that was said, and counted."""
    async with whole(tmp_path, Spec("one")) as gateway:
        body = PATHS[path] | {"model": "one", "stream": True}
        reply = await gateway.client.post(path, json=body)
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.text.count("data: ") >= 6
        found = await stats(gateway)
        assert found["successful_requests"] == 1
        assert 0 < found["time_to_first_token"]["p50"] <= found["response_time"]["p50"]
        assert gateway.in_flight == 0


@pytest.mark.parametrize("path", PATHS)
async def test_pieces_come_as_they_are_said(tmp_path: Path, path: str) -> None:
    """What the engine writes at once arrives before it writes again, whatever it is; the first is timed by itself."""
    written = [b"data: 1", b"\n\n", b"\x00\xff" * 10, b"data: \xe2\x82", b"\xac\n\n"]
    read = asyncio.Event()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for piece in written:
            writer.write(chunk(piece))
            await writer.drain()
            await read.wait()
            read.clear()
        writer.write(b"0\r\n\r\n")

    async with scripted(tmp_path, script) as (gateway, _):
        pieces: list[bytes] = []
        async with gateway.client.stream("POST", path, json=PATHS[path] | {"model": "one", "stream": True}) as reply:
            async for piece in reply.aiter_raw():
                if not pieces:
                    await asyncio.sleep(0.2)  # so much lies between the first and the last, however slow the machine
                pieces.append(piece)
                read.set()
        assert pieces == written
        found = await stats(gateway)
        assert found["response_time"]["p50"] - found["time_to_first_token"]["p50"] > 0.15


async def test_the_head_does_not_wait_for_the_first_piece(tmp_path: Path) -> None:
    """A stream whose first token takes long is open at the client meanwhile."""
    opened = asyncio.Event()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        await opened.wait()
        writer.write(chunk(b"data: 1\n\n") + b"0\r\n\r\n")

    async with scripted(tmp_path, script) as (gateway, _), asyncio.timeout(PATIENCE):
        async with gateway.client.stream("POST", "/v1/completions", json={"model": "one", "stream": True}) as reply:
            opened.set()
            await reply.aread()
        assert reply.content == b"data: 1\n\n"


async def test_error_instead_of_a_stream_is_not_a_first_token(tmp_path: Path) -> None:
    """A quick 400 must not make the times to first token look good."""
    async with scripted(tmp_path, answer(b'{"error":{}}', "400 Bad Request")) as (gateway, _):
        refused = await gateway.client.post("/v1/completions", json={"model": "one", "stream": True})
        assert refused.status_code == 400
        assert (await stats(gateway))["time_to_first_token"]["p50"] is None


@pytest.mark.parametrize("fault", ["reset_after_tokens", "close_after_tokens"])
async def test_stream_that_breaks_off_says_so(tmp_path: Path, fault: str) -> None:
    """One error event in the protocol's shape, no [DONE], no clean end; counted as failed."""
    async with whole(tmp_path, Spec("one")) as gateway:
        for path, fields in PATHS.items():
            gateway.sims["one"].fault(**{fault: {"tokens": 3, "times": 1}})
            async with raw(gateway) as client:
                await client.post(path, fields | {"model": "one", "stream": True})
                assert (await client.head()).startswith("http/1.1 200")
                rest = await client.rest()
            _broke_off(path, rest)
        found = await stats(gateway)
        assert (found["failed_requests"], found["successful_requests"]) == (len(PATHS), 0)
        assert found["status_classes"] == {"2xx": len(PATHS)}
        assert gateway.in_flight == 0


def _broke_off(path: str, rest: bytes) -> None:
    body, ended = unchunked(rest)
    assert not ended
    assert b"[DONE]" not in body
    assert b"message_stop" not in body
    events = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]
    assert len(events) >= 4
    failure = events[-1]
    if path == "/v1/messages":
        assert (failure["type"], failure["error"]["type"]) == ("error", "api_error")
        assert b"event: error\n" in body
    elif path == "/v1/responses":
        assert (failure["type"], failure["code"]) == ("error", "engine_disconnected")
    else:
        assert failure["error"]["code"] == "engine_disconnected"


async def test_stream_that_breaks_in_the_middle_of_an_event(tmp_path: Path) -> None:
    """The error is an event of its own all the same."""

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + chunk(b'data: {"id": 1}\n\n') + chunk(b'data: {"id'))
        await writer.drain()
        writer.close()

    async with scripted(tmp_path, script) as (gateway, _), raw(gateway) as client:
        await client.post("/v1/chat/completions", {"model": "one", "stream": True})
        await client.head()
        body, ended = unchunked(await client.rest())
    assert not ended
    last = [line for line in body.split(b"\n") if line.startswith(b"data: ")][-1]
    assert json.loads(last[6:])["error"]["code"] == "engine_disconnected"


@pytest.mark.parametrize("asked", [{"stream": 1}, {"stream": "true"}, {"stream_format": "sse"}])
async def test_a_stream_is_told_however_it_was_asked_for(tmp_path: Path, asked: dict[str, Any]) -> None:
    """Engines take 1 for true; speech has a field of its own. What comes says that it is a stream."""

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + chunk(b'data: {"id": 1}\n\n'))
        await writer.drain()
        writer.close()

    async with scripted(tmp_path, script) as (gateway, _), raw(gateway) as client:
        await client.post("/v1/audio/speech", {"model": "one"} | asked)
        await client.head()
        body, ended = unchunked(await client.rest())
    assert not ended
    assert b"engine_disconnected" in body


async def test_garbage_in_mid_stream_is_a_break(tmp_path: Path) -> None:
    """Bytes that are no chunk: what came before is passed on, then the error."""

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + chunk(b"data: 1\n\n"))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"this is no chunk\r\n")

    async with scripted(tmp_path, script) as (gateway, engine), raw(gateway) as client:
        await client.post("/v1/chat/completions", {"model": "one", "stream": True})
        await client.head()
        rest = await client.rest()
        assert b"data: 1\n\n" in rest
        assert b"engine_disconnected" in rest
        await until(lambda: not engine.open)
        assert (await stats(gateway))["failed_requests"] == 1


@pytest.mark.parametrize("length", [True, False])
async def test_body_that_is_too_short_does_not_end_cleanly(tmp_path: Path, length: bool) -> None:
    """Neither with a length nor in chunks: the client sees that bytes are missing."""
    head = "content-length: 100" if length else "transfer-encoding: chunked"

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        data = b'{"a": ' if length else chunk(b'{"a": ')
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{head}\r\n\r\n".encode() + data)
        await writer.drain()
        writer.close()

    async with scripted(tmp_path, script) as (gateway, _), raw(gateway) as client:
        await client.post("/v1/chat/completions", {"model": "one"})
        assert head in await client.head()
        rest = await client.rest()
        assert rest == (b'{"a": ' if length else chunk(b'{"a": '))
        assert (await stats(gateway))["failed_requests"] == 1


@pytest.mark.parametrize("size", [100_000, 2_000])
async def test_slow_client_pauses_the_engine(tmp_path: Path, size: int) -> None:
    """Of fifty megabytes only what the buffers hold leaves the engine until the client reads; then all comes."""
    piece, count, sent = chunk(b"x" * size), 50_000_000 // size, 0

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        for _ in range(count):
            writer.write(piece)
            await writer.drain()
            sent += 1
        writer.write(b"0\r\n\r\n")

    async with scripted(tmp_path, script) as (gateway, engine), raw(gateway) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.post("/v1/completions", {"model": "one", "stream": True})
        before = -1
        while sent != before or not sent:
            before = sent
            await asyncio.sleep(0.15)
        assert [one.target for one in engine.received] == [b"/v1/completions"]  # nothing else was asked, nor twice
        assert 0 < sent * size < 30_000_000
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await client.head()
        read, last = 0, b""
        while last != b"0\r\n\r\n":
            data = await client.reader.read(1_000_000)
            assert data
            read += data.count(b"x")
            last = (last + data)[-5:]  # it may come in two reads
        assert read == count * size
        await until(lambda: gateway.in_flight == 0)
        assert (await stats(gateway))["successful_requests"] == 1
