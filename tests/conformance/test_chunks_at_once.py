"""What the engine writes reaches the client before it writes again.

Each check is a handshake: the engine goes on only when the client has what was written. No clock takes part.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from tests.conformance.engine import PATIENCE, Exchange
from tests.conformance.hop import DONE, LAST, STREAM_HEAD, Hop, delta
from tests.router.proxy.scripted import chunk

PIECES = {
    "whole events": [delta("a"), delta("b"), delta("c"), DONE],
    "a comment": [b": ping\n\n", delta("a"), DONE],
    "half an event": [delta("a")[:30], delta("a")[30:], DONE],
    "half a line end": [delta("a")[:-1], b"\n", DONE],
    "half a character": [b'data: {"choices": [], "x": "\xe2\x82', b'\xac"}\n\n', DONE],
    "two events at once": [delta("a") + delta("b"), delta("c") + DONE],
}


class Handshake:
    """Sends one piece after the other, each when the client has had the one before."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._had = threading.Semaphore(0)

    def had(self) -> None:
        self._had.release()

    def __call__(self, exchange: Exchange) -> None:
        *before, last = self._pieces
        for piece in before:
            exchange.send(piece)
            if not self._had.acquire(timeout=PATIENCE):
                exchange.close()
                return
        exchange.send(last)


@pytest.mark.parametrize("case", PIECES)
def test_each_piece_comes_at_once(hop: Hop, case: str) -> None:
    """Nobody waits for the end of an event, or for the next one."""
    script = Handshake([STREAM_HEAD + chunk(PIECES[case][0]), *map(chunk, PIECES[case][1:]), LAST])
    hop.answers(script)
    reply = hop.post(hop.body(stream=True))
    for piece in PIECES[case]:
        assert reply.exactly(len(piece)) == piece
        script.had()
    assert reply.body() == b""
    assert reply.clean


def test_what_is_said_comes_at_once(hop: Hop) -> None:
    """Word by word, whatever the gateway makes of the events."""
    words = ["one", "two", "three"]
    script = Handshake(
        [STREAM_HEAD + chunk(delta(words[0])), *(chunk(delta(word)) for word in words[1:]), chunk(DONE) + LAST]
    )
    hop.answers(script)
    reply = hop.post(hop.body(stream=True))
    for word in words:
        heard = b""
        while word.encode() not in heard:
            piece = reply.piece()
            assert piece
            heard += piece
        script.had()
    reply.body()
    assert reply.clean


def test_pieces_are_not_merged_or_cut(hop: Hop) -> None:
    """One chunk of the engine is one chunk at the client."""
    pieces = [delta("a"), delta("b" * 5000), b": \n\n", DONE]
    script = Handshake([STREAM_HEAD + chunk(pieces[0]), *map(chunk, pieces[1:]), LAST])
    hop.answers(script)
    reply = hop.post(hop.body(stream=True))
    for piece in pieces:
        assert reply.piece() == piece
        script.had()


def test_the_head_comes_before_the_first_piece(hop: Hop) -> None:
    """Engines send it when they take the request: a client learns that it was heard, however long the prompt is."""
    script = Handshake([STREAM_HEAD, chunk(delta("a")) + chunk(DONE) + LAST])
    hop.answers(script)
    reply = hop.post(hop.body(stream=True))
    assert reply.status == 200
    script.had()
    assert reply.body() == delta("a") + DONE


def test_an_answer_that_is_no_stream_is_not_held_back(hop: Hop) -> None:
    """Audio and long answers come in pieces too."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ncontent-length: 20\r\n\r\n"
    script = Handshake([head + b"0123456789", b"abcdefghij"])
    hop.answers(script)
    reply = hop.post()
    assert reply.exactly(10) == b"0123456789"
    script.had()
    assert reply.body() == b"abcdefghij"
    assert reply.clean
