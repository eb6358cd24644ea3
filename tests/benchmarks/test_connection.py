"""The client's HTTP against a server that says exactly these bytes."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.answer import Answer
from benchmarks.connection import Server

JSON = b'{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
GOOD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(JSON), JSON)


class Saying:
    """Answers each request with the next of ``replies``; closes the connection after one that ends in nothing more."""

    def __init__(self, *replies: bytes, close: bool = False) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._replies = list(replies)
        self._close = close

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self._replies:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                writer.write(self._replies.pop(0))
                await writer.drain()
                if self._close:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


async def ask(saying: Saying, times: int = 1, timeout: float = 5.0) -> list[Answer]:
    server = await asyncio.start_server(saying.serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = Server(url, "/v1/x", {"authorization": "Bearer k"}, timeout)
        answers = [Answer() for _ in range(times)]
        for answer in answers:
            await client.post(b'{"a": 1}', answer)
            await asyncio.sleep(0.02)
        client.close()
    return answers


def test_one_connection_serves_many_requests() -> None:
    """Kept alive: three requests on one connection, each with path, key and body."""
    saying = Saying(GOOD, GOOD, GOOD)
    answers = asyncio.run(ask(saying, 3))

    assert [answer.problem for answer in answers] == [None] * 3
    assert saying.connections == 1
    assert saying.requests[2].startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert b"\r\nauthorization: Bearer k\r\n" in saying.requests[2]
    assert saying.requests[2].endswith(b'\r\n\r\n{"a": 1}')


@pytest.mark.parametrize(
    "reply",
    [
        GOOD.replace(b"\r\ncontent-length", b"\r\nconnection: close\r\ncontent-length"),
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + JSON,
        b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
    ],
)
def test_other_ways_to_end_an_answer(reply: bytes) -> None:
    """A connection that is closed after the answer, or is its end, or says 100 first, is no error, twice."""
    answers = asyncio.run(ask(Saying(reply, reply, close=True), 2))

    assert [(answer.status, answer.problem) for answer in answers] == [(200, None)] * 2


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (GOOD[:-5], "connection closed"),
        (b"", "connection closed"),
        (b"nonsense\r\n\r\n", "answer that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "connection closed"),
    ],
)
def test_a_broken_answer_is_an_error(reply: bytes, problem: str) -> None:
    """A connection that ends too soon, or never spoke HTTP, is told as such."""
    assert asyncio.run(ask(Saying(reply, close=True)))[0].problem == problem


def test_a_silent_server_is_given_up() -> None:
    """After the timeout the request is an error and the connection is not used again."""
    saying = Saying(b"HTTP/1.1 200 OK\r\n", GOOD)
    answers = asyncio.run(ask(saying, 2, timeout=0.1))

    assert [answer.problem for answer in answers] == ["no answer in time", None]
    assert saying.connections == 2


def test_nobody_there() -> None:
    """A refused connection is an error that was never written to the wire."""

    async def refused() -> Answer:
        answer = Answer()
        await Server("http://127.0.0.1:1", "/", {}, 5.0).post(b"{}", answer)
        return answer

    answer = asyncio.run(refused())

    assert answer.problem is not None
    assert answer.problem.startswith("cannot connect")
    assert answer.sent is None
