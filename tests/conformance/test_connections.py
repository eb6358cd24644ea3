"""Connections are kept on both sides, and one that the engine closed costs nobody a request."""

from __future__ import annotations

import pytest

from tests.conformance.engine import Exchange
from tests.conformance.hop import COMPLETION, FINE, SAID, Hop, said
from tests.router.proxy.scripted import answer


def test_a_client_may_ask_again_on_its_connection(hop: Hop) -> None:
    client = hop.client()
    for _ in range(5):
        hop.send(client=client)
        assert said(client.reply().body()) == SAID


def test_a_connection_to_the_engine_is_used_again(hop: Hop) -> None:
    """One handshake for many requests."""
    for _ in range(5):
        assert said(hop.post().body()) == SAID
    assert len({request.connection for request in hop.received}) < 5


def test_an_engine_that_closes_without_a_word_costs_no_request(hop: Hop) -> None:
    """As uvicorn does with connections that it thinks idle, perhaps just as the next request is written."""

    def script(exchange: Exchange) -> None:
        exchange.send(FINE)
        exchange.close()

    hop.answers(script)
    assert [hop.post().status for _ in range(20)] == [200] * 20


def test_an_engine_that_says_close_is_taken_at_its_word(hop: Hop) -> None:
    hop.answers(answer(COMPLETION, "200 OK", "Connection: close"))
    assert [hop.post().status for _ in range(5)] == [200] * 5
    assert len({request.connection for request in hop.received}) == 5


def test_clients_of_http_1_0_get_no_chunks(hop: Hop) -> None:
    """They are told the end by the end of the connection."""
    if not hop.target.direct:
        pytest.skip("uvicorn gives chunks to anybody")
    hop.answers(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
                b"%x\r\n%b\r\n0\r\n\r\n" % (len(COMPLETION), COMPLETION))  # fmt: skip
    client = hop.client()
    data = b'{"model": "%b", "messages": [{"role": "user", "content": "%b"}]}'
    body = data % (hop.target.model.encode(), hop.word.encode())
    client.send(hop.head(len(body)).replace(b"HTTP/1.1", b"HTTP/1.0", 1) + body)
    reply = client.reply()
    assert reply.header("transfer-encoding") is None
    assert said(reply.body()) == SAID
