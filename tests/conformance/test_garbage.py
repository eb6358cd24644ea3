"""An engine that gives no answer, or none that can be understood, is a 502 and a reason."""

from __future__ import annotations

import pytest

from tests.conformance.client import Client, Reply
from tests.conformance.engine import Exchange
from tests.conformance.hop import COMPLETION, FINE, SAID, Hop, said
from tests.router.proxy.scripted import answer

SENT = {
    "no HTTP": b"hello, this is no HTTP\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "odd version": answer(COMPLETION).replace(b"HTTP/1.1", b"HTTQ/1.1"),
    "odd status": answer(COMPLETION, "abc Odd"),
    "status beyond all": answer(COMPLETION, "999 Odd"),
    "odd length": answer(COMPLETION).replace(b"content-length: ", b"content-length: -"),
    "two lengths": answer(COMPLETION, "200 OK", "content-length: 5"),
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-type: appli",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"x-filler: " + b"y" * 2_000_000,
    "nothing": b"",
}


def failed(hop: Hop, case: str, client: Client) -> Reply:
    def script(exchange: Exchange) -> None:
        exchange.send(SENT[case])
        exchange.close()

    hop.answers(script)
    return hop.send(client=client).reply()


@pytest.mark.parametrize("case", SENT)
def test_it_is_a_bad_gateway(hop: Hop, case: str) -> None:
    """Not 500, which says that the gateway itself is broken; with an error in JSON."""
    reply = failed(hop, case, hop.client())
    assert reply.status == 502
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize("case", SENT)
def test_it_harms_nothing_else(hop: Hop, case: str) -> None:
    """Some 5xx, and the next request on the connection is served."""
    client = hop.client()
    reply = failed(hop, case, client)
    assert 500 <= reply.status <= 599
    reply.body()
    assert reply.clean
    hop.answers(FINE)
    hop.send(client=client)
    assert said(client.reply().body()) == SAID


def test_a_reset_is_a_bad_gateway(hop: Hop) -> None:
    """The process was killed before it said anything."""
    hop.answers(Exchange.reset)
    reply = hop.post()
    assert reply.status == 502
    assert reply.json()["error"]["message"]


def test_what_follows_an_answer_is_not_the_next_one(hop: Hop) -> None:
    """A second answer, that nobody asked for, in the same write."""
    hop.answers(FINE + answer(b'{"stolen": true}'))
    for _ in range(3):
        assert said(hop.post().body()) == SAID
