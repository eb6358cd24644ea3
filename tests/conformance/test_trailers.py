"""Trailers of the engine end with the hop: they change neither the answer nor the next one."""

from __future__ import annotations

from tests.conformance.hop import FINE, SAID, STREAM_HEAD, Hop, delta, said
from tests.router.proxy.scripted import chunk

TRAILED = STREAM_HEAD + chunk(delta("a")) + b"0\r\nx-checksum: 1\r\nx-more: 2\r\n\r\n"


def test_they_are_dropped_cleanly(hop: Hop) -> None:
    """The stream is whole, and they are in neither its head nor its body."""
    hop.answers(TRAILED)
    reply = hop.post(hop.body(stream=True))
    assert said(reply.body()) == "a"
    assert reply.clean
    assert reply.header("x-checksum") is None


def test_the_next_answer_is_its_own(hop: Hop) -> None:
    """On the same connections."""
    hop.answers(TRAILED)
    client = hop.send(hop.body(stream=True))
    assert said(client.reply().body()) == "a"
    hop.answers(FINE)
    hop.send(client=client)
    reply = client.reply()
    assert said(reply.body()) == SAID
    assert reply.header("x-checksum") is None


def test_chunks_with_extensions_are_chunks(hop: Hop) -> None:
    """What stands behind a size is for nobody."""
    hop.answers(STREAM_HEAD + b"%x;name=value\r\n%b\r\n0;end\r\n\r\n" % (len(delta("a")), delta("a")))
    reply = hop.post(hop.body(stream=True))
    assert said(reply.body()) == "a"
    assert reply.clean
