"""An event stream passes byte by byte, however it is framed.

Comments keep connections alive, ids and retry times are what clients resume by, and odd line ends are allowed.
"""

from __future__ import annotations

import pytest

from tests.conformance.hop import DONE, Hop, delta, stream

STREAMS = {
    "as ever": [delta("a"), delta("b"), DONE],
    "comments": [b": ping\n\n", delta("a"), b":\n\n", b": keep-alive\n", delta("b"), DONE],
    "fields": [b"id: 7\nretry: 500\nevent: odd\n" + delta("a"), DONE],
    "two lines of data": [b'data: {"id": "chatcmpl-1",\ndata:  "choices": []}\n\n', DONE],
    "CRLF": [delta("a").replace(b"\n", b"\r\n"), DONE.replace(b"\n", b"\r\n")],
    "CR": [delta("a").replace(b"\n", b"\r"), DONE.replace(b"\n", b"\r")],
    "no blank after the colon": [delta("a").replace(b"data: ", b"data:"), b"data:[DONE]\n\n"],
    "blanks and escapes": [b'data: { "choices" : [],  "x":"\\u00e9\\/" , "y":1.0}\n\n', DONE],
    "unknown fields": [b'data: {"choices": [], "of_next_year": {"z": 1, "a": [1e3]}, "usage": null}\n\n', DONE],
    "no JSON": [b"data: hello\n\n", b"data\n\n", b"data:\n\n", DONE],
    "byte order mark": [b"\xef\xbb\xbf" + delta("a"), DONE],
    "after the end": [delta("a"), DONE, b": bye\n\n", delta("late")],
    "no blank line at the end": [delta("a"), b"data: [DONE]"],
    "no [DONE]": [delta("a"), delta("b")],
    "error of the engine": [delta("a"), b'data: {"error": {"message": "out of pages", "code": 500}}\n\n', DONE],
    "cut in a character": [b'data: {"choices": [], "x": "\xe2\x82', b'\xac"}\n\n', DONE],
    "cut in a line end": [delta("a")[:-1], b"\n" + delta("b"), DONE],
}


@pytest.mark.parametrize("case", STREAMS)
def test_it_arrives_as_it_was_sent(hop: Hop, case: str) -> None:
    """The same bytes, and a clean end."""
    hop.answers(stream(*STREAMS[case]))
    reply = hop.post(hop.body(stream=True))
    assert reply.body() == b"".join(STREAMS[case])
    assert reply.clean


def test_a_long_event_arrives_whole(hop: Hop) -> None:
    """One line of a megabyte, as prompts' log probabilities make them."""
    event = delta("x" * 1_000_000)
    hop.answers(stream(event, DONE))
    assert hop.post(hop.body(stream=True)).body() == event + DONE
