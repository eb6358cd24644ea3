"""How large a head may be, how long a client may take, and how many there may be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.gateway import RESERVED_FILES, most_connections
from router.server import server
from router.server.limits import SECONDS, Limits, Patience, Stage, spare
from router.server.server import patrol
from tests.router.gateway import Gateway, until
from tests.router.proxy.scripted import Raw, Received, answer, chunk, raw, scripted
from tests.router.server.conftest import Limited

pytestmark = pytest.mark.anyio

BODY = b'{"model":"one"}'
HEAD = f"POST /v1/completions HTTP/1.1\nhost: x\ncontent-length: {len(BODY)}"
SHORT = 0.2
"""For clients that will be cut off."""

LONG = 0.8
"""For clients that must not be, however busy the machine is."""


async def refusal(client: Raw) -> tuple[int, str]:
    """Status and code of the one answer, after which the connection ends."""
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert head.lower().count(b"connection: close") == 1
    assert head.count(b"HTTP/1.1 ") == 1
    assert b"x-torpor-error-source: gateway" in head
    return int(head.split(b" ")[1]), json.loads(body)["error"]["code"]


# -- sizes -----------------------------------------------------------------------------------------------------------

URL = "POST /v1/completions?{} HTTP/1.1\nhost: x\ncontent-length: 15"


TOO_LARGE = [
    (URL.format("x" * 9_000), (414, "url_too_long")),
    (URL.format("x" * 70_000), (414, "url_too_long")),
    (URL.format("x" * 900_000), (414, "url_too_long")),
    (HEAD + "\nx-a: " + "x" * 66_000, (431, "head_too_large")),
    (HEAD + "\n" + "x" * 66_000 + ": a", (431, "head_too_large")),
    (HEAD + "\nx-a: " + "x" * 900_000, (431, "head_too_large")),
    (HEAD + "".join(f"\nx-{number}: {'y' * 1_000}" for number in range(80)), (431, "head_too_large")),
    (HEAD + "\na: b" * 100, (431, "head_too_large")),
    (HEAD + "\na: b" * 150_000, (431, "head_too_large")),
]


async def test_a_head_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """Whether it comes at once or without end; the engine sees nothing, the gateway keeps nothing."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for head, expected in TOO_LARGE:
            for path in ("/v1/completions", "/health"):
                async with raw(gateway) as client:
                    asked = asyncio.create_task(client.ask(head.replace("/v1/completions", path), BODY))
                    assert await refusal(client) == expected
                    with contextlib.suppress(ConnectionError):
                        await asked
        assert engine.received == []


async def test_a_head_within_the_limits_passes(tmp_path: Path) -> None:
    """A long URL, many headers and large ones, in two reads and in one."""
    head = URL.format("x" * 8_000) + "".join(f"\nx-{number}: {'y' * 550}" for number in range(98))
    asked = head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + BODY
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        for cut in (0, 100, 40_000, len(asked) - len(BODY) - 1):
            client.writer.write(asked[:cut])
            await asyncio.sleep(0.02)
            client.writer.write(asked[cut:])
            assert (await client.head()).startswith("http/1.1 200")
            await client.reader.readexactly(2)
        assert len(engine.received) == 4


async def test_a_large_body_is_no_large_head(tmp_path: Path) -> None:
    """The end of one and the beginning of the next head come in one read."""
    body = b'{"model":"one","x":"' + b"x" * 200_000 + b'"}'
    one = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    async with scripted(tmp_path, answer(b"{}")) as (gateway, _), raw(gateway) as client:
        client.writer.write(one + one[:30])
        assert (await client.head()).startswith("http/1.1 200")
        client.writer.write(one[30:])
        await client.reader.readexactly(2)
        assert (await client.head()).startswith("http/1.1 200")


ENDLESS = {
    "trailers": b"0\r\n" + b"a: b\r\n" * 150_000,
    "a trailer": b"0\r\nx-a: " + b"x" * 900_000,
    "a trailer's name": b"0\r\n" + b"x" * 900_000,
    "an extension": b"1;x=" + b"x" * 900_000,
}


@pytest.mark.parametrize("framing", ENDLESS.values(), ids=ENDLESS)
async def test_what_frames_a_body_has_an_end(tmp_path: Path, framing: bytes) -> None:
    """It is nothing that anybody gets, and grows all the same."""
    head = "POST {} HTTP/1.1\nhost: x\ntransfer-encoding: chunked"
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for path in ("/v1/completions", "http://x/v1/completions"):
            async with raw(gateway) as client:
                asked = asyncio.create_task(client.ask(head.format(path), chunk(BODY) + framing))
                assert await refusal(client) == (431, "head_too_large")
                with contextlib.suppress(ConnectionError):
                    await asked
        await until(lambda: gateway.in_flight == 0)
        assert engine.received == []


async def test_sizes_of_chunks_in_reads_of_their_own_are_no_endless_frame(tmp_path: Path, limited: Limited) -> None:
    """However many there are."""
    limited(head=200)
    body = b'{"model":"one","x":"' + b"x" * 100 + b'"}'
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        await client.ask("POST /v1/completions HTTP/1.1\nhost: x\ntransfer-encoding: chunked")
        for byte in body:
            for piece in (b"1\r\n", bytes([byte]), b"\r\n"):
                client.writer.write(piece)
                await asyncio.sleep(0.0005)
        client.writer.write(b"0\r\n\r\n")
        assert (await client.head()).startswith("http/1.1 200")
        assert [one.body for one in engine.received] == [body]


async def test_a_body_takes_as_much_as_it_is_long(tmp_path: Path) -> None:
    """Not more for coming in tiny chunks: what all of them take is counted by their length."""
    chunks = 40_000
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        await client.ask("POST /v1/completions HTTP/1.1\nhost: x\ntransfer-encoding: chunked", chunk(BODY[:-1]))
        tracemalloc.start()
        for _ in range(100):
            client.writer.write(chunk(b"  ") * (chunks // 100))
            await client.writer.drain()
        await until(lambda: gateway.live is not None and gateway.live.buffered.held == len(BODY) - 1 + 2 * chunks)
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert taken < 8 * chunks
        client.writer.write(chunk(b"}") + b"0\r\n\r\n")
        assert (await client.head()).startswith("http/1.1 200")
        assert engine.received[0].body == BODY[:-1] + b"  " * chunks + b"}"


async def test_a_refusal_that_ends_its_connection_says_so_once(tmp_path: Path) -> None:
    """Through the direct door."""
    async with scripted(tmp_path, answer(b"{}"), router={"max_body_mb": 0.01}) as (gateway, _), raw(gateway) as client:
        await client.ask("POST /v1/completions HTTP/1.1\nhost: x\ncontent-length: 99999999", b"x" * 50_000)
        assert await refusal(client) == (413, "body_too_large")


async def test_the_metrics_tell_how_many_clients_there_are(tmp_path: Path) -> None:
    """Also those that ask for nothing."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, _), raw(gateway) as client:
        await client.ask(HEAD, BODY)
        await client.head()
        async with raw(gateway) as idle:
            await idle.ask("GET /health HTTP/1.1\nhost: x")
            await idle.head()
            page = (await gateway.client.get("/metrics")).text
        assert "\ntorpor_client_connections 3.0\n" in page


# -- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages", "/health", ""])
async def test_a_head_that_is_not_finished_is_cut_off(tmp_path: Path, limited: Limited, path: str) -> None:
    """408, however often a byte of it comes."""
    limited({Stage.HEAD: SHORT})
    async with scripted(tmp_path, answer(b"{}")) as (gateway, _), raw(gateway) as client:

        async def drip() -> None:
            client.writer.write(f"POST {path} HTTP/1.1\r\nx: ".encode() if path else b"P")
            while path:
                client.writer.write(b"x")
                await asyncio.sleep(SHORT / 20)

        dripping = asyncio.create_task(drip())
        said = await client.rest()
        dripping.cancel()
        assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        error = json.loads(said.partition(b"\r\n\r\n")[2])["error"]
        assert error["type"] == ("timeout_error" if path == "/v1/messages" else "invalid_request_error")


@pytest.mark.parametrize(
    "framing",
    ["content-length: 100", "transfer-encoding: chunked", "content-encoding: gzip\nx: y\ncontent-length: 100"],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/nowhere"])
async def test_a_body_that_stalls_is_cut_off(tmp_path: Path, limited: Limited, framing: str, path: str) -> None:
    """408, or the refusal it got already; nothing is left."""
    limited({Stage.BODY: SHORT, Stage.REST: SHORT})
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        await client.ask(f"POST {path} HTTP/1.1\nhost: x\n{framing}", b"5\r\n" + BODY[:3])
        said = await client.rest()
        assert said.startswith(b"HTTP/1.1 404" if path == "/nowhere" else b"HTTP/1.1 408")
        assert engine.received == []
        assert gateway.in_flight == 0


async def test_a_slow_upload_is_no_stall(tmp_path: Path, limited: Limited) -> None:
    """It may take many times the limit, as long as something comes."""
    limited({Stage.BODY: LONG})
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        await client.ask(HEAD)
        for byte in BODY:
            client.writer.write(bytes([byte]))
            await asyncio.sleep(LONG / 12)
        assert (await client.head()).startswith("http/1.1 200")
        assert engine.received[0].body == BODY


async def test_idle_connections_are_closed(tmp_path: Path, limited: Limited) -> None:
    """Without a word; one that is used is kept, and so is one whose engine takes its time."""

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.2 * LONG if request.all("x-slow") else 0)
        writer.write(answer(b"{}"))

    limited({Stage.IDLE: LONG, Stage.HEAD: LONG, Stage.BODY: LONG, Stage.WRITING: LONG, Stage.REST: LONG})
    async with scripted(tmp_path, script) as (gateway, _), raw(gateway) as client, raw(gateway) as silent:
        for more in ("", "", "\nx-slow: yes", "", ""):
            await client.ask(HEAD + more, BODY)
            assert (await client.head()).startswith("http/1.1 200")
            assert await client.reader.readexactly(2) == b"{}"
            await asyncio.sleep(LONG / 4)
        assert await client.rest() == b""
        assert await silent.rest() == b""


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_reads_nothing_is_let_go(tmp_path: Path, limited: Limited, stream: bool) -> None:
    """Its engine is freed; whoever reads slowly is served."""
    limited({Stage.WRITING: LONG})
    size = 150

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        kind = b"text/event-stream" if stream else b"application/json"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(size):
            writer.write(chunk(b"x" * 65_536))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with scripted(tmp_path, script) as (gateway, engine):
        async with raw_small(gateway) as sock:
            await asyncio.get_running_loop().sock_sendall(
                sock, HEAD.replace("\n", "\r\n").encode() + b"\r\n\r\n" + BODY
            )
            await until(lambda: len(engine.received) == 1)
            await until(lambda: gateway.in_flight == 0)
            await until(lambda: not engine.open)
        size = 10
        async with raw_small(gateway) as sock:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, HEAD.replace("\n", "\r\n").encode() + b"\r\n\r\n" + BODY)
            got = 0
            while got < size * 65_536:
                got += len(await loop.sock_recv(sock, 65_536))
                await asyncio.sleep(LONG / 100)
            assert gateway.in_flight == 0


@contextlib.asynccontextmanager
async def raw_small(gateway: Gateway) -> Any:
    """A client whose kernel keeps little of what it does not read."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(
            sock, ("127.0.0.1", int(gateway.url.rstrip("/").rsplit(":", 1)[1]))
        )
        yield sock


async def test_five_hundred_slow_clients_hinder_nobody(tmp_path: Path, limited: Limited) -> None:
    """Heads, bodies and connections without a byte: others are served meanwhile, and all of these end."""
    limited({Stage.HEAD: 0.7, Stage.BODY: 0.7})
    async with scripted(tmp_path, answer(b"{}")) as (gateway, _), contextlib.AsyncExitStack() as stack:
        slow = await asyncio.gather(*(stack.enter_async_context(raw(gateway)) for _ in range(500)))
        for number, client in enumerate(slow):
            kinds = (b"", b"POST /v1/completions HTT", (HEAD + "\n\n{").replace("\n", "\r\n").encode())
            client.writer.write(kinds[number % 3])
        for _ in range(50):
            assert (await gateway.client.post("/v1/completions", content=BODY)).status_code == 200
        said = await asyncio.gather(*(client.rest() for client in slow))
        assert {one.split(b"\r\n")[0] for one in said} == {b"", b"HTTP/1.1 408 Request Timeout"}
        assert (await gateway.client.post("/v1/completions", content=BODY)).status_code == 200


async def test_whoever_lingers_is_closed(tmp_path: Path, limited: Limited) -> None:
    """A refused client has a moment to read the answer, not for ever, whatever it still sends."""
    limited({Stage.LINGERING: SHORT})
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        await client.ask("nonsense")
        assert (await client.rest()).startswith(b"HTTP/1.1 400")
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                while True:
                    await client.ask(HEAD, BODY)
                    await asyncio.sleep(SHORT / 10)
        assert engine.received == []


async def test_the_patrol_survives(limited: Limited, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that cannot be looked at does not keep the others from it."""
    limited()
    looked = asyncio.Event()

    class Broken:
        def look(self, now: float) -> None:
            raise ValueError("no")

    class Good(Broken):
        def look(self, now: float) -> None:
            looked.set()

    task = asyncio.create_task(patrol({Broken(), Good()}))
    with caplog.at_level(logging.CRITICAL, "router.server.server"):
        await asyncio.wait_for(looked.wait(), 5)
    task.cancel()


async def test_what_holds_up_the_gateway_tries_nobodys_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped, say; what clients sent meanwhile is read after it has looked at the clock."""
    now, looks, looked = 0.0, list[float](), asyncio.Event()
    monkeypatch.setattr(server, "monotonic", lambda: now)
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.001)

    class Client:
        def look(self, now: float) -> None:
            looks.append(now)
            looked.set()

    async def next_look() -> float:
        looked.clear()
        await looked.wait()
        return looks[-1]

    task = asyncio.create_task(patrol({Client()}))
    before = await next_look()
    now += 1000.0  # while the patrol sleeps
    assert await next_look() - before == pytest.approx(server.LOOK_SECONDS)
    now += server.LOOK_SECONDS  # as long as it meant to
    assert await next_look() - before == pytest.approx(2 * server.LOOK_SECONDS)
    task.cancel()


@given(st.lists(st.tuples(st.sampled_from(Stage), st.integers(0, 2), st.floats(0.1, 50)), min_size=1, max_size=20))
def test_patience_is_over_when_nothing_has_changed_for_too_long(looks: list[tuple[Stage, int, float]]) -> None:
    """And never otherwise."""
    patience, now, since, last = Patience(), 0.0, 0.0, None
    for stage, progress, seconds in looks:
        now += seconds
        if (stage, progress) != last:
            last, since = (stage, progress), now
        assert patience.is_over(stage, progress, now, Limits()) == (now - since >= SECONDS[stage])


# -- connections -----------------------------------------------------------------------------------------------------


async def test_more_clients_than_fit_are_told(tmp_path: Path, limited: Limited) -> None:
    """503 at once, in our shape; those that are in stay in; a place that is left is free."""
    limited(connections=16)
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), contextlib.AsyncExitStack() as stack:
        inside = [await stack.enter_async_context(raw(gateway)) for _ in range(16)]
        for client in inside:
            await client.ask(HEAD, BODY)
            assert (await client.head()).startswith("http/1.1 200")
            await client.reader.readexactly(2)
        outside = [await stack.enter_async_context(raw(gateway)) for _ in range(6)]
        for client in outside[:2]:
            await client.ask(HEAD, BODY)
        for client in outside:
            said = await client.rest()
            assert said == b"" or (said.startswith(b"HTTP/1.1 503") and b"too_many_connections" in said)
            assert said or client not in outside[:2]  # only when far too many come is the answer left to luck
            assert not said or b"retry-after: 1\r\n" in said
        assert len(engine.received) == 16
        await inside[0].ask(HEAD, BODY)
        assert (await inside[0].head()).startswith("http/1.1 200")
        for client in (inside[1], *outside):
            client.writer.close()
        await until_served(gateway)


async def until_served(gateway: Gateway) -> None:
    async with asyncio.timeout(10):
        while True:
            async with raw(gateway) as client:
                await client.ask(HEAD, BODY)
                if (await client.head()).startswith("http/1.1 200"):
                    return
            await asyncio.sleep(0.01)


@given(st.integers(0, 2_000_000), st.integers(0, 2_000))
def test_connections_fit_into_the_open_files(files: int, engines: int) -> None:
    """Two for each client, one for each that is told that it does not fit, one for each engine, and some for us."""
    most = most_connections(files, engines)
    assert most is not None
    needed = 2 * most + spare(most) + engines + RESERVED_FILES
    assert most == 1 or needed <= files
    assert needed + 70 > files


def test_without_a_limit_of_files_there_is_none_of_connections() -> None:
    """As many as come."""
    assert most_connections(None, 5) is None
