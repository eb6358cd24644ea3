"""An answer that is shorter than it was to be does not end cleanly."""

from __future__ import annotations

import pytest

from tests.conformance.engine import Exchange
from tests.conformance.hop import COMPLETION, SAID, Hop, said
from tests.router.proxy.scripted import answer, chunk

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
FRAMES = {
    "length": answer(COMPLETION)[:-40],
    "one byte short": answer(COMPLETION)[:-1],
    "chunks": PLAIN + b"transfer-encoding: chunked\r\n\r\n" + chunk(COMPLETION[:60]),
    "within a chunk": PLAIN + b"transfer-encoding: chunked\r\n\r\n" + chunk(COMPLETION)[:60],
    "without the last line": PLAIN + b"transfer-encoding: chunked\r\n\r\n" + chunk(COMPLETION) + b"0\r\n",
}


@pytest.mark.parametrize("ending", ["closed", "reset"])
@pytest.mark.parametrize("frame", FRAMES)
def test_the_client_can_tell(hop: Hop, frame: str, ending: str) -> None:
    """Either a 5xx in its place, or an answer whose end is missing."""

    def script(exchange: Exchange) -> None:
        exchange.send(FRAMES[frame])
        if ending == "closed":
            exchange.close()
        else:
            exchange.reset()

    hop.answers(script)
    reply = hop.post()
    body = reply.body()
    if reply.status < 500:
        assert not reply.clean
        assert FRAMES[frame].count(body) == 1


def test_an_answer_without_a_length_ends_with_its_connection(hop: Hop) -> None:
    """As HTTP/1.0 has it: that one is whole."""

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + COMPLETION)
        exchange.close()

    hop.answers(script)
    reply = hop.post()
    assert (reply.status, said(reply.body()), reply.clean) == (200, SAID, True)
