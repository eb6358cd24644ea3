"""Numbers and texts are passed on as they were written.

A seed above 2^53 that goes through a double is another seed; `1.0` that becomes `1` is another type to a strict engine.
"""

from __future__ import annotations

import pytest

from tests.conformance.hop import Hop

WRITTEN = {
    "large integer": b"12345678901234567890",
    "beyond 64 bits": b"123456789012345678901234567890",
    "whole float": b"1.0",
    "exponent": b"1e3",
    "trailing zero": b"0.10",
    "many digits": b"0.12345678901234567890123",
    "negative zero": b"-0.0",
    "escape": b'"\\u00e9\\u0041"',
    "escaped slash": b'"a\\/b"',
    "characters": '"é漢😀"'.encode(),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_it_arrives_as_written(hop: Hop, case: str) -> None:
    """In a field of the engine's own."""
    body = b'{"model": "%b", "messages": [{"role": "user", "content": "%b"}], "vllm_xargs": {"x": %b}}'
    hop.post(body % (hop.target.model.encode(), hop.word.encode(), WRITTEN[case]))
    assert WRITTEN[case] in hop.request.body.partition(b'"vllm_xargs"')[2]


def test_a_body_stays_the_same_bytes(hop: Hop) -> None:
    """Blanks and line ends among them: whoever signs or hashes a body counts on it."""
    text = '{ "messages" : [ {"role":"user",\n\t"content": "%s"} ],\r\n "model": "%s" , "seed":  7 }'
    body = (text % (hop.word, hop.target.model)).encode()
    hop.post(body)
    assert hop.request.body == body
