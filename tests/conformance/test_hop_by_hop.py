"""Headers that are for one connection stay on it (RFC 9110, section 7.6.1).

Passed on, they make the next server misread where a message ends, or tell it secrets meant for the one before.
"""

from __future__ import annotations

import pytest

from tests.conformance.hop import COMPLETION, LAST, SAID, Hop, said
from tests.router.proxy.scripted import answer, chunk

OF_ONE_HOP = ("Keep-Alive: timeout=9", "TE: trailers", "Proxy-Authorization: Basic eA==", "Proxy-Connection: close",
              "Upgrade: h2c", "Trailer: x-checksum")  # fmt: skip


@pytest.mark.parametrize("header", OF_ONE_HOP)
def test_it_does_not_reach_the_engine(hop: Hop, header: str) -> None:
    """Whether Connection names it or not."""
    hop.post(hop.body(), header)
    assert hop.request.all(header.partition(":")[0].lower()) == []


def test_what_connection_lists_does_not_reach_the_engine(hop: Hop) -> None:
    """In any case of letters, in one header or several."""
    hop.post(
        hop.body(), "Connection: keep-alive, X-Secret", "Connection: x-other", "X-Secret: 1", "x-OTHER: 2", "X-Stay: 3"
    )
    assert hop.request.all("x-secret") == hop.request.all("x-other") == []
    assert hop.request.all("x-stay") == [b"3"]
    assert not any(b"x-secret" in value.lower() for value in hop.request.all("connection"))


def test_connection_close_of_a_client_is_for_the_gateway(hop: Hop) -> None:
    """It closes, and may keep its connection to the engine."""
    client = hop.send(hop.body(), "Connection: close")
    assert said(client.reply().body()) == SAID
    assert client.is_closed()
    assert b"close" not in hop.request.all("connection")


def test_it_does_not_reach_the_client(hop: Hop) -> None:
    """Neither what the RFC names nor what the engine's Connection lists."""
    own = (
        "Connection: keep-alive, X-Hop",
        "Keep-Alive: timeout=5",
        "X-Hop: 1",
        "Proxy-Authenticate: Basic",
        "X-Stay: 2",
    )
    hop.answers(answer(COMPLETION, "200 OK", *own))
    reply = hop.post()
    assert reply.header("x-stay") == "2"
    assert reply.header("x-hop") is None
    assert reply.header("proxy-authenticate") is None
    assert reply.header("keep-alive") != "timeout=5"  # one of the gateway's own is its right


def test_the_engines_framing_is_not_the_clients(hop: Hop) -> None:
    """However the engine framed its answer, the client's has one frame, and ends by it."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    hop.answers(head + chunk(COMPLETION[:50]) + chunk(COMPLETION[50:]) + LAST)
    reply = hop.post()
    assert len(reply.all("transfer-encoding") + reply.all("content-length")) == 1
    assert said(reply.body()) == SAID
    assert reply.clean


def test_an_engine_that_closes_does_not_close_the_client(hop: Hop) -> None:
    """Its Connection: close is for the gateway: the client's next request goes on the same connection."""
    hop.answers(answer(COMPLETION, "200 OK", "Connection: close"))
    client = hop.send()
    for turn in range(2):
        assert said(client.reply().body()) == SAID, turn
        if turn == 0:
            hop.send(client=client)
