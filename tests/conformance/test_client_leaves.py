"""A client that leaves takes its request with it: the engine's connection is closed, and the engine stops.

Nothing else tells an engine that nobody reads what it makes; until then it holds GPU time and cache.
"""

from __future__ import annotations

import socket
import struct

import pytest

from tests.conformance.client import Client
from tests.conformance.engine import PATIENCE, Exchange
from tests.conformance.hop import COMPLETION, STREAM_HEAD, Hop, delta
from tests.router.proxy.scripted import answer, chunk

BEGUN = {
    "nothing": (False, b""),
    "nothing of a stream": (True, b""),
    "the head of a stream": (True, STREAM_HEAD),
    "a piece of a stream": (True, STREAM_HEAD + chunk(delta("a"))),
    "half an answer": (False, answer(COMPLETION)[:-40]),
}
"""Whether it was to be a stream, and what the engine had sent."""


def _close(client: Client) -> None:
    client.leave()


def _reset(client: Client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.leave()


LEAVE = {"close": _close, "reset": _reset}


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("begun", BEGUN)
def test_the_engine_is_told(hop: Hop, begun: str, leave: str) -> None:
    """At once, before its first byte or after, streaming or not."""
    streaming, sent = BEGUN[begun]
    taken, over = hop.event(), hop.event()
    told = []

    def script(exchange: Exchange) -> None:
        exchange.send(sent)
        taken.set()
        told.append(exchange.left())
        over.set()

    hop.answers(script)
    client = hop.send(hop.body(stream=streaming))
    assert taken.wait()
    if begun == "a piece of a stream":
        assert client.reply().piece()
    LEAVE[leave](client)
    assert over.wait(PATIENCE + 5)
    assert told == [True]


def test_one_that_waits_for_more_than_it_asked_is_let_go(hop: Hop) -> None:
    """Bytes that it sent ahead do not hide that it has gone."""
    taken, over = hop.event(), hop.event()
    told = []

    def script(exchange: Exchange) -> None:
        exchange.send(STREAM_HEAD + chunk(delta("a")))
        taken.set()
        told.append(exchange.left())
        over.set()

    hop.answers(script)
    client = hop.send(hop.body(stream=True))
    assert taken.wait()
    assert client.reply().piece()
    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.example\r\n")
    client.leave()
    assert over.wait(PATIENCE + 5)
    assert told == [True]
