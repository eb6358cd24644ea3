"""Bodies of many megabytes pass whole in both directions, and no faster than they are read."""

from __future__ import annotations

import hashlib
import json
import socket

from tests.conformance.engine import Exchange
from tests.conformance.hop import DONE, LAST, STREAM_HEAD, Hop, delta
from tests.router.proxy.scripted import answer, chunk

MEGABYTE = 1_000_000


def test_a_large_request_arrives_whole(hop: Hop) -> None:
    """Eight megabytes: a few pictures."""
    picture = hashlib.sha256(b"").hexdigest() * (8 * MEGABYTE // 64)
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    body = hop.body(messages=[{"role": "user", "content": [{"type": "text", "text": hop.word}, part]}])
    assert hop.post(body).status == 200
    assert json.loads(hop.request.body)["messages"] == body["messages"]


def test_a_large_answer_arrives_whole(hop: Hop) -> None:
    """Eight megabytes: embeddings."""
    vector = ",".join(["0.12345678"] * (8 * MEGABYTE // 11))
    body = b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[%b]}],"model":"m"}' % vector.encode()
    hop.answers(answer(body))
    reply = hop.post()
    assert reply.body() == body
    assert reply.clean


def test_many_pieces_arrive_whole(hop: Hop) -> None:
    """Twenty thousand, as fast as they go."""
    events = [delta(str(number)) for number in range(20_000)]
    hop.answers(STREAM_HEAD + b"".join(map(chunk, events)) + chunk(DONE) + LAST)
    reply = hop.post(hop.body(stream=True))
    assert reply.body() == b"".join(events) + DONE
    assert reply.clean


def test_a_client_that_does_not_read_holds_the_engine(hop: Hop) -> None:
    """What the gateway takes meanwhile is bounded: a sleeping client must not fill its memory."""
    sent, over = [], hop.event()
    length = 200 * MEGABYTE
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n" % length

    def script(exchange: Exchange) -> None:
        exchange.send(head)
        sent.append(exchange.send_what_goes(length, 0.5))
        exchange.close()
        over.set()

    hop.answers(script)
    client = hop.client()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    hop.send(client=client)
    assert over.wait(30)
    assert sent[0] < length / 2  # what it took is in the kernel's buffers, which may hold tens of megabytes
