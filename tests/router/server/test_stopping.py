"""Told to stop, the gateway lets running requests finish, and tells those that cannot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.router.gateway import VLLM, Spec, engines, gateway, until
from tests.router.proxy.scripted import Raw, Received, Scripted, answer, chunk, raw, scripted, unchunked
from tests.router.server.program import program

pytestmark = pytest.mark.anyio

SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FIRST = b"data: 1\n\n"
STOPPING = "gateway_stopping"
STREAMS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")


async def never(request: Received, writer: asyncio.StreamWriter) -> None:
    """Streams begin, and nothing ends."""
    if b'"stream": true' in request.body:
        writer.write(SSE + chunk(FIRST))
    await asyncio.sleep(60)


async def ask_all(engine: Scripted, connect: Any, stack: contextlib.AsyncExitStack) -> tuple[list[Raw], list[Raw]]:
    """A stream of each kind, begun, and a request of each kind that is not answered yet."""
    streams: list[Raw] = []
    others: list[Raw] = []
    for path in STREAMS:
        for clients, stream in ((streams, True), (others, False)):
            client = await stack.enter_async_context(connect())
            await client.post(path, {"model": "one", "stream": stream})
            clients.append(client)
    await until(lambda: len(engine.received) == 2 * len(STREAMS))
    for client in streams:
        assert (await client.head()).startswith("http/1.1 200")
        await client.reader.readuntil(FIRST)
    return streams, others


async def check_all(streams: list[Raw], others: list[Raw]) -> None:
    for path, client in zip(STREAMS, streams, strict=True):
        body, ended = unchunked((await client.rest()).removeprefix(b"\r\n"))
        assert not ended, path
        lines = [line for line in body.decode().splitlines() if line]
        error = json.loads(lines[-1].removeprefix("data: "))
        if path == "/v1/messages":
            assert lines[0] == "event: error"
            assert error["error"]["type"] == "overloaded_error"
        else:
            assert (error if path == "/v1/responses" else error["error"])["code"] == STOPPING
        assert sum(line.startswith("data: ") for line in lines) == 1
    for path, client in zip(STREAMS, others, strict=True):
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503"), (path, head)
        assert head.lower().count(b"connection: close") == 1
        assert (b"overloaded_error" if path == "/v1/messages" else STOPPING.encode()) in body


@pytest.mark.usefixtures("each_door")
async def test_what_cannot_finish_is_told(tmp_path: Path) -> None:
    """A stream: one event in its protocol's shape and no clean end. Anything else: 503. All is counted out."""
    async with contextlib.AsyncExitStack() as stack:
        async with scripted(tmp_path, never) as (running, engine):
            streams, others = await ask_all(engine, lambda: raw(running), stack)
            traffic = running.live.traffic.models["one"]
        await check_all(streams, others)
        assert running.in_flight == 0
        assert {outcome.value: count for outcome, count in traffic.outcomes.items() if count} == {"failed": 8}


async def test_no_traceback_when_our_own_pages_are_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What waits for a wake by hand is answered with 503 too."""
    slow = Spec("one", replace(VLLM, wake_seconds=30.0))
    async with engines(slow) as sims, contextlib.AsyncExitStack() as stack:
        async with gateway(tmp_path, sims) as running:
            await running.put_to_sleep("one")
            waker = await stack.enter_async_context(raw(running))
            await waker.ask("POST /model/wake/one HTTP/1.1\nhost: x\ncontent-length: 0")
            asker = await stack.enter_async_context(raw(running))
            await asker.post("/v1/completions", {"model": "one"})
            await until(lambda: running.live.traffic.models["one"].waiting == 1)
        for client in (waker, asker):
            said = await client.rest()
            assert said.startswith(b"HTTP/1.1 503"), said
            assert b"gateway_stopping" in said
        assert "Traceback" not in caplog.text


async def test_running_requests_finish(tmp_path: Path) -> None:
    """SIGTERM: nobody new, idle connections end, whoever runs is served whole; exit code 0."""
    go_on = asyncio.Event()

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(b"{}"))

    async with program(tmp_path, script) as running, running.raw() as idle, running.raw() as busy:
        await idle.ask("GET /health HTTP/1.1\nhost: x")
        await idle.head()
        await busy.post("/v1/completions", {"model": "one"})
        await until(lambda: len(running.engine.received) == 1)
        running.signal()
        assert await idle.rest() == b'{"status":"healthy"}'
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", running.port)
        go_on.set()
        said = await busy.rest()
        assert said.startswith(b"HTTP/1.1 200")
        assert said.endswith(b"{}")
        assert await running.exit_code() == 0
        assert "Traceback" not in running.log


async def test_at_the_deadline_it_ends(tmp_path: Path) -> None:
    """The program says it to every client, and ends with exit code 0 and no traceback."""
    async with program(tmp_path, never, stop_timeout_seconds=0.3) as running, contextlib.AsyncExitStack() as stack:
        streams, others = await ask_all(running.engine, running.raw, stack)
        running.signal()
        await check_all(streams, others)
        assert await running.exit_code() == 0
        assert "Traceback" not in running.log


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_means_now(tmp_path: Path, second: signal.Signals) -> None:
    """No waiting for the deadline; clients are told all the same."""
    async with program(tmp_path, never, stop_timeout_seconds=3600) as running, contextlib.AsyncExitStack() as stack:
        streams, others = await ask_all(running.engine, running.raw, stack)
        idle = await stack.enter_async_context(running.raw())
        running.signal()
        assert await idle.rest() == b""
        running.signal(second)
        await check_all(streams, others)
        assert await running.exit_code() == 0
        assert "Traceback" not in running.log


async def test_few_open_files(tmp_path: Path) -> None:
    """With room for a dozen clients a hundred come: some are served, the others told or closed, nothing breaks."""
    async with program(tmp_path, answer(b"{}"), files=64) as running, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(running.raw()) for _ in range(100)]
        told = await asyncio.gather(*(serve_once(client) for client in clients))
        assert {"200", "503"} <= set(told) <= {"200", "503", ""}
        served = told.count("200")
        assert 5 <= served <= 16
        for client, status in zip(clients, told, strict=True):
            if status == "200":
                assert await serve_once(client) == "200"
        await stack.aclose()
        async with asyncio.timeout(10):
            while True:
                async with running.raw() as client:
                    if await serve_once(client) == "200":
                        break
        running.signal()
        assert await running.exit_code() == 0
        assert "Traceback" not in running.log
        assert "Too many open files" not in running.log


async def serve_once(client: Raw) -> str:
    """The status; empty if it was closed without a word."""
    try:
        await client.post("/v1/completions", {"model": "one"})
        head = await client.head()
        await client.reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
    except (OSError, EOFError):
        return ""
    return head.split(" ")[1]
