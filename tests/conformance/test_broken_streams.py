"""A stream that breaks off looks broken to its client, and says so in the shape of its protocol.

A client that is told `[DONE]`, or given a clean end, takes half an answer for a whole one.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.client import Reply
from tests.conformance.engine import Exchange
from tests.conformance.hop import CHAT, COMPLETIONS, MESSAGES, PATHS, RESPONSES, STREAM_HEAD, Hop, delta
from tests.router.proxy.scripted import chunk

FIRST = {
    CHAT: delta("a"),
    COMPLETIONS: b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"m",'
    b'"choices":[{"index":0,"text":"a","finish_reason":null}]}\n\n',
    RESPONSES: b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a",'
    b'"item_id":"i","output_index":0,"content_index":0,"sequence_number":4}\n\n',
    MESSAGES: b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"a"}}\n\n',
}
ENDS = (b"[DONE]", b"message_stop", b"response.completed")


def _close(exchange: Exchange) -> None:
    exchange.close()


def _reset(exchange: Exchange) -> None:
    exchange.reset()


def _half_an_event(exchange: Exchange) -> None:
    exchange.send(chunk(b'data: {"id'))
    exchange.close()


def _half_a_chunk(exchange: Exchange) -> None:
    exchange.send(b"400\r\ndata: ")
    exchange.close()


def _no_chunk(exchange: Exchange) -> None:
    exchange.send(b"this is no chunk\r\n")
    exchange.left()


FAULTS = {
    "closed": _close,
    "reset": _reset,
    "in an event": _half_an_event,
    "in a chunk": _half_a_chunk,
    "garbage": _no_chunk,
}


def broken(hop: Hop, path: str, fault: str, begin: bytes = b"") -> tuple[Reply, bytes]:
    """The answer to a stream that breaks off when the client has its first piece, and what came of it.

    ``begin``: what the engine sends before; a head and the first event if nothing is given.
    """

    def script(exchange: Exchange) -> None:
        exchange.send(begin or STREAM_HEAD + chunk(FIRST[path]))
        had.wait()
        FAULTS[fault](exchange)

    had = hop.event()
    hop.answers(script)
    reply = hop.post(hop.body(path, stream=True), path=path)
    if reply.status in (404, 405):
        had.set()
        pytest.skip(f"the gateway has no {path}")
    first = reply.piece()
    had.set()
    return reply, first + reply.body()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", PATHS)
def test_it_has_no_clean_end(hop: Hop, path: str, fault: str) -> None:
    """Its last chunk is missing, so that every HTTP client notices."""
    reply, _ = broken(hop, path, fault)
    assert not reply.clean


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", PATHS)
def test_it_does_not_say_that_it_is_done(hop: Hop, path: str, fault: str) -> None:
    """For clients that look no further than for that."""
    _, body = broken(hop, path, fault)
    assert not any(end in body for end in ENDS)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", PATHS)
def test_it_says_what_happened(hop: Hop, path: str, fault: str) -> None:
    """By one event, as the protocol has it, after all that the engine said."""
    _, body = broken(hop, path, fault)
    assert body.startswith(FIRST[path])
    found = failures(body)
    assert len(found) == 1
    name, event = found[0]
    if path == MESSAGES:
        assert (name, event["type"]) == ("error", "error")
        assert {"type", "message"} <= set(event["error"])
    elif path == RESPONSES:
        assert (name, event["type"]) == ("error", "error")
        assert {"code", "message", "param"} <= set(event)
    else:
        assert {"message", "type", "code"} <= set(event["error"])


def failures(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The events that tell of an error, with their names."""
    found = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        try:
            event = json.loads(fields.get("data", ""))
        except ValueError:
            continue
        if "error" in event or event.get("type") == "error":
            found.append((fields.get("event", ""), event))
    return found


def test_one_with_a_length_is_too_short(hop: Hop) -> None:
    """Nothing is put in place of the bytes that are missing: they would make it look whole."""
    length = len(FIRST[CHAT]) + 40
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % length
    reply, body = broken(hop, CHAT, "closed", head + FIRST[CHAT])
    assert body.startswith(FIRST[CHAT])
    assert not reply.clean


def test_a_packed_one_stays_readable(hop: Hop) -> None:
    """An event in plain text would be garbage to whoever unpacks it."""
    packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    reply, body = broken(hop, CHAT, "closed", head + chunk(packed))
    assert body == packed
    assert not reply.clean
