"""What all request bodies together may take is bounded, and counted to the byte."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest

from router.proxy.buffered import Buffered
from tests.router.gateway import Gateway, code_of, until
from tests.router.proxy.scripted import Received, answer, raw, scripted

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_door")]

ONE_MB: dict[str, Any] = {"router": {"max_body_mb": 0.6, "max_buffered_mb": 1}}


def body_of(size: int) -> bytes:
    start = b'{"model": "one", "x": "'
    return start + b"x" * (size - len(start) - 2) + b'"}'


@pytest.fixture
def buffered(monkeypatch: pytest.MonkeyPatch) -> list[Buffered]:
    """The gateway's own."""
    made: list[Buffered] = []
    begin = Buffered.__init__

    def remember(self: Buffered, limit: int, largest: int) -> None:
        begin(self, limit, largest)
        made.append(self)

    monkeypatch.setattr(Buffered, "__init__", remember)
    return made


def held(made: list[Buffered]) -> int:
    return sum(one.held for one in made)


async def test_bodies_are_counted_until_their_answers_are_there(tmp_path: Path, buffered: list[Buffered]) -> None:
    """Those being read, and those whose engine takes its time; a large one does not fit beside them."""
    go_on = asyncio.Event()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(b"{}"))

    async with scripted(tmp_path, script, **ONE_MB) as (gateway, engine), raw(gateway) as reading:
        waiting = asyncio.create_task(gateway.client.post("/v1/completions", content=body_of(500_000)))
        await until(lambda: len(engine.received) == 1)
        assert held(buffered) == 500_000
        await reading.ask("POST /v1/completions HTTP/1.1\nhost: x\ncontent-length: 400000", body_of(400_000)[:-1])
        await until(lambda: held(buffered) > 800_000)
        assert f"\ntorpor_buffered_request_bytes {held(buffered)}.0\n" in (await gateway.client.get("/metrics")).text
        await _is_full(gateway, 300_000)
        await _is_full(gateway, 590_000)
        go_on.set()
        assert (await waiting).status_code == 200
        reading.writer.write(b"}")
        assert (await reading.head()).startswith("http/1.1 200")
        await until(lambda: held(buffered) == 0)
        assert (await gateway.client.post("/v1/completions", content=body_of(590_000))).status_code == 200
        assert len(engine.received) == 3
        assert held(buffered) == 0


async def _is_full(gateway: Gateway, size: int) -> None:
    refused = await gateway.client.post("/v1/completions", content=body_of(size))
    assert code_of(refused) == (503, "too_many_buffered_bytes")
    assert refused.headers["retry-after"] == "5"
    assert "router.max_buffered_mb" in refused.json()["error"]["message"]


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 502])
async def test_refusals_give_all_of_it_back(tmp_path: Path, buffered: list[Buffered], status: int) -> None:
    """Whoever refuses."""
    content = {400: b"x" * 1_000, 404: b'{"model": "two"}', 413: b"x" * 700_000}.get(status, body_of(1_000))
    key = {"api_key_env": "K"} if status == 401 else {}
    headers = {"content-encoding": "br"} if status == 415 else {}
    script = b"nonsense\r\n\r\n" if status == 502 else answer(b"{}")
    sections = {"router": ONE_MB["router"] | key, "environment": {"K": "right"}}
    async with scripted(tmp_path, script, **sections) as (gateway, _):
        for _ in range(3):
            refused = await gateway.client.post("/v1/completions", content=content, headers=headers)
            assert refused.status_code == status
        await until(lambda: held(buffered) == 0)


@pytest.mark.parametrize("phase", ["reading", "waiting", "streaming", "decoding"])
async def test_clients_that_leave_give_all_of_it_back(tmp_path: Path, buffered: list[Buffered], phase: str) -> None:
    """In whatever phase."""

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        if phase == "streaming":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await asyncio.sleep(60)

    body = gzip.compress(body_of(300_000)) if phase == "decoding" else body_of(300_000)
    more = "\ncontent-encoding: gzip" if phase == "decoding" else ""
    async with scripted(tmp_path, script, **ONE_MB) as (gateway, engine):
        async with raw(gateway) as client:
            head = f"POST /v1/completions HTTP/1.1\nhost: x\ncontent-length: {len(body)}{more}"
            await client.ask(head, body[:-1] if phase == "reading" else body)
            await until(lambda: held(buffered) > 200_000)
            if phase != "reading":
                await until(lambda: len(engine.received) == 1)
        await until(lambda: held(buffered) == 0)
        await until(lambda: gateway.in_flight == 0)


async def test_a_decoded_body_counts_as_what_it_is(tmp_path: Path, buffered: list[Buffered]) -> None:
    """Not as what was sent."""
    go_on = asyncio.Event()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(b"{}"))

    packed = gzip.compress(body_of(550_000))
    async with scripted(tmp_path, script, **ONE_MB) as (gateway, engine):
        headers = {"content-encoding": "gzip"}
        first = asyncio.create_task(gateway.client.post("/v1/completions", content=packed, headers=headers))
        await until(lambda: len(engine.received) == 1)
        assert held(buffered) == 550_000
        refused = await gateway.client.post("/v1/completions", content=packed, headers=headers)
        assert code_of(refused) == (503, "too_many_buffered_bytes")
        assert held(buffered) == 550_000
        go_on.set()
        assert (await first).status_code == 200
        await until(lambda: held(buffered) == 0)
