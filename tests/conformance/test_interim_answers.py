"""Announcements before an answer, and answers before the request has ended, are told apart from the answer."""

from __future__ import annotations

import json

import pytest

from tests.conformance.engine import Exchange
from tests.conformance.hop import FINE, SAID, Hop, said
from tests.router.proxy.scripted import answer

INTERIM = {
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "hints": b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n",
    "both": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx-early: 1\r\n\r\n",
    "processing": b"HTTP/1.1 102 Processing\r\n\r\n",
}


@pytest.mark.parametrize("case", INTERIM)
def test_an_announcement_is_no_answer(hop: Hop, case: str) -> None:
    """What follows is; the headers of the one are not those of the other."""
    hop.answers(INTERIM[case] + FINE)
    reply = hop.post()
    assert (reply.status, said(reply.body())) == (200, SAID)
    assert reply.header("x-early") is None


def test_an_answer_before_the_end_of_the_request_is_given(hop: Hop) -> None:
    """An engine that finds a body too large says so at its beginning; nothing that follows may hide that."""
    refusal = answer(b'{"error": {"message": "too large"}}', "413 Content Too Large", "connection: close")

    def script(exchange: Exchange) -> None:
        exchange.send(refusal)
        exchange.drain()

    hop.answers(script, early=True)
    body = json.dumps(hop.body(filler="x" * 4_000_000)).encode()
    reply = hop.post(body)
    assert reply.status == 413
    assert reply.json() == {"error": {"message": "too large"}}


def test_a_careful_client_is_told_to_go_on(hop: Hop) -> None:
    """Expect: 100-continue is answered, and is not for the engine."""
    data = json.dumps(hop.body()).encode()
    client = hop.client()
    client.send(hop.head(len(data), "/v1/chat/completions", "Expect: 100-continue"))
    client.socket.settimeout(5)
    assert client.socket.recv(25).startswith(b"HTTP/1.1 100 ")
    client.send(data)
    assert said(client.reply().body()) == SAID
    assert hop.request.all("expect") == []
