"""The GET with which engines are looked at: against a server that says, byte by byte, whatever a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from runtime.engines.base import Engine, EngineTimeout, EngineUnreachable, Sight
from runtime.engines.control import Control, open_client
from runtime.engines.glance import MOST_BYTES, Address, Answer, Glance
from runtime.engines.kinds import KINDS
from runtime.engines.spec import EngineSpec

pytestmark = pytest.mark.anyio

Script = Callable[[str], bytes | None]
"""From a path to its answer, after which the connection is closed; None: nothing ever comes."""

JSON = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{"is_sleeping": true}'
AWAKE = JSON.replace(b"21", b"22").replace(b"true", b"false")
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 22\r\n\r\n" + b'{"detail":"Not Found"}'
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno"


class Server:
    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        self.heads: list[str] = []
        self.open: set[asyncio.Transport] = set()


class Connection(asyncio.Protocol):
    def __init__(self, server: Server, script: Script) -> None:
        self._server = server
        self._script = script

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.open.add(self._transport)

    def data_received(self, data: bytes) -> None:
        head = data.decode()
        path = head.split(" ")[1]
        self._server.heads.append(head)
        self._server.asked.append(path)
        answer = self._script(path)
        if answer is not None:
            self._transport.write(answer)
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.open.discard(self._transport)


@contextlib.asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Server]:
    listener = await asyncio.get_running_loop().create_server(lambda: Connection(server, script), "127.0.0.1", 0)
    server: Server = Server(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    async with listener:
        yield server
        for transport in server.open:
            transport.abort()


async def look(answer: bytes) -> Answer:
    async with serving(lambda _: answer) as server:
        return await Address(server.url, None).get("/health", 5.0)


async def read_by(size: int, answer: bytes) -> Answer:
    """As it would be read if ``size`` bytes came at a time."""
    glance = Glance(asyncio.get_running_loop().create_future())
    for at in range(0, len(answer), size):
        glance.data_received(answer[at : at + size])
    glance.connection_lost(None)
    return await glance.answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (JSON, Answer(200, b'{"is_sleeping": true}')),
        (EMPTY, Answer(200, b"")),
        (NOT_FOUND, Answer(404, b'{"detail":"Not Found"}')),
        (
            b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            Answer(503, b"abcde"),
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", Answer(200, b"to the end")),
        (b"HTTP/1.0 200 OK\r\n\r\n", Answer(200, b"")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, b"")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + EMPTY, Answer(200, b"")),
    ],
)
async def test_an_answer_is_read(answer: bytes, expected: Answer) -> None:
    """However it is framed, in one piece and in single bytes."""
    assert await look(answer) == expected
    assert await read_by(1, answer) == expected


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_what_is_no_answer(said: bytes) -> None:
    """Silence and garbage are as good as nobody."""
    with pytest.raises(OSError, match="it "):
        await look(said)


async def test_a_long_answer_is_not_read_to_its_end() -> None:
    """It is cut off where nobody needs more of it."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n"
    answer = await read_by(10_000, head + bytes(1_000_000))
    assert answer.status == 200
    assert MOST_BYTES - len(head) < len(answer.body) < MOST_BYTES + 10_000


async def test_what_is_sent() -> None:
    """Its key, and its path below the address."""
    async with serving(lambda _: EMPTY) as server:
        await Address(server.url + "/engine", "secret").get("/health", 5.0)
    start, *headers = server.heads[0].split("\r\n")
    assert start == "GET /engine/health HTTP/1.1"
    assert f"host: {server.url.removeprefix('http://')}" in headers
    assert "authorization: Bearer secret" in headers


async def test_errors_are_told_apart() -> None:
    """Nobody there is one thing, no answer in time another."""
    async with serving(lambda _: None) as server:
        with pytest.raises(TimeoutError):
            await Address(server.url, None).get("/health", 0.05)
        url = server.url
    with pytest.raises(ConnectionRefusedError):
        await Address(url, None).get("/health", 5.0)


@contextlib.asynccontextmanager
async def engine(kind: str, script: Script) -> AsyncIterator[tuple[Engine, Server]]:
    async with serving(script) as server, open_client() as client:
        host, port = server.url.removeprefix("http://").split(":")
        spec = EngineSpec("one", kind, "m", host, int(port), server.url, ("m",))
        yield KINDS[kind].connect(spec, client, 5.0), server


def by_path(**answers: bytes) -> Script:
    return lambda path: answers.get(path[1:], NOT_FOUND)


@pytest.mark.parametrize(
    ("kind", "script", "sights", "asked"),
    [
        ("vllm", by_path(is_sleeping=JSON), [Sight(True, True)], ["/is_sleeping"]),
        ("vllm", by_path(is_sleeping=AWAKE), [Sight(True, False)], ["/is_sleeping"]),
        (  # not in dev mode: it is asked once
            "vllm",
            by_path(health=EMPTY),
            [Sight(True), Sight(True)],
            ["/is_sleeping", "/health", "/health"],
        ),
        (  # no vLLM, but something that has one answer to everything
            "vllm",
            lambda _: NOT_FOUND.replace(b"404 Not Found", b"200 OK"),
            [Sight(True), Sight(True)],
            ["/is_sleeping", "/health", "/health"],
        ),
        ("vllm", by_path(is_sleeping=BROKEN, health=BROKEN), [Sight(False)], ["/is_sleeping", "/health"]),
        ("vllm", by_path(is_sleeping=BROKEN, health=EMPTY), [Sight(True)], ["/is_sleeping", "/health"]),
        ("vllm", lambda _: b"", [Sight(False)], ["/is_sleeping"]),
        (  # an older one: what it knows is remembered
            "sglang",
            by_path(model_info=EMPTY),
            [Sight(True), Sight(True)],
            ["/ready", "/model_info", "/model_info"],
        ),
        ("sglang", by_path(ready=BROKEN), [Sight(False)], ["/ready"]),
        ("sglang", lambda _: b"", [Sight(False)], ["/ready"]),
        ("openai", by_path(), [Sight(True, False)], ["/v1/models"]),
        ("openai", lambda _: BROKEN, [Sight(False, False)], ["/v1/models"]),
    ],
)
async def test_a_look_at_each_kind(kind: str, script: Script, sights: list[Sight], asked: list[str]) -> None:
    """One call where one will do, and never one that would touch a model."""
    async with engine(kind, script) as (one, server):
        assert [await one.look() for _ in sights] == sights
        assert server.asked == asked


async def test_a_look_without_an_answer_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is busy is not taken for dead."""
    monkeypatch.setattr("runtime.engines.control.PROBE_SECONDS", 0.05)
    for kind in ("vllm", "sglang", "openai"):
        async with engine(kind, lambda _: None) as (one, _):
            assert (await one.look()).healthy is None


async def test_a_look_takes_no_longer_than_a_call_may() -> None:
    """Whoever gives an engine less than that for each call means this one, too."""
    async with serving(lambda _: None) as server, open_client() as client:
        host, port = server.url.removeprefix("http://").split(":")
        spec = EngineSpec("one", "vllm", "m", host, int(port), server.url, ("m",), call_seconds=0.05)
        with pytest.raises(EngineTimeout, match=r"no answer within 0\.05 s"):
            await Control(spec, client).look("/health")


async def test_errors_name_the_engine_and_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of every other call do."""
    monkeypatch.setattr("runtime.engines.control.PROBE_SECONDS", 0.05)
    async with serving(lambda _: None) as server, open_client() as client:
        host, port = server.url.removeprefix("http://").split(":")
        control = Control(EngineSpec("one", "vllm", "m", host, int(port), server.url, ("m",)), client)
        with pytest.raises(EngineTimeout, match="one: GET /health: no answer within"):
            await control.look("/health")
    with pytest.raises(EngineUnreachable, match="one: GET /health"):
        await control.look("/health")
