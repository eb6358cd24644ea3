"""Headers pass in both directions, each as often as it was sent.

They carry what engines, tracers and applications agree on without the gateway: sessions, cache hints, rate limits.
"""

from __future__ import annotations

import pytest

from tests.conformance.hop import COMPLETION, Hop, stream
from tests.router.proxy.scripted import answer

HEADERS = {"X-Session-Id": "s 1", "OpenAI-Organization": "org", "Anthropic-Version": "2023-06-01", "Accept": "*/*",
           "User-Agent": "conformance/1", "Accept-Language": "de, en;q=0.5", "X-Latin": "\xe9"}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_reaches_the_engine(hop: Hop, name: str) -> None:
    """With its value as it was written."""
    hop.post(hop.body(), f"{name}: {HEADERS[name]}")
    assert hop.request.all(name.lower()) == [HEADERS[name].encode("latin-1")]


def test_headers_sent_twice_reach_the_engine(hop: Hop) -> None:
    """As two, or joined by a comma in the same order, which means the same."""
    hop.post(hop.body(), "X-Many: 1", "X-Many: 2")
    assert b", ".join(hop.request.all("x-many")) == b"1, 2"


def test_the_host_is_the_engines(hop: Hop) -> None:
    """Not the name that the client knows the gateway by."""
    hop.post()
    assert len(hop.request.all("host")) == 1
    assert b"gateway.example" not in hop.request.all("host")[0]


def test_headers_reach_the_client(hop: Hop) -> None:
    """Those of the engine, whatever their names."""
    hop.answers(answer(COMPLETION, "200 OK", "X-Engine: yes", "openai-processing-ms: 12", "x-ratelimit-limit: 5"))
    reply = hop.post()
    assert reply.header("x-engine") == "yes"
    assert reply.header("openai-processing-ms") == "12"
    assert reply.header("x-ratelimit-limit") == "5"
    assert reply.header("content-type") == "application/json"


def test_headers_sent_twice_reach_the_client(hop: Hop) -> None:
    """Cookies cannot be joined: each must stay a header of its own."""
    hop.answers(answer(COMPLETION, "200 OK", "Set-Cookie: a=1", "set-cookie: b=2; Path=/"))
    assert hop.post().all("set-cookie") == ["a=1", "b=2; Path=/"]


def test_headers_of_a_stream_reach_the_client(hop: Hop) -> None:
    hop.answers(stream(b"data: 1\n\n").replace(b"\r\n\r\n", b"\r\nX-Engine: yes\r\n\r\n", 1))
    assert hop.post(hop.body(stream=True)).header("x-engine") == "yes"


def test_the_type_of_a_stream_reaches_the_client(hop: Hop) -> None:
    """With its parameters."""
    hop.answers(stream(b"data: 1\n\n"))
    assert hop.post(hop.body(stream=True)).header("content-type") == "text/event-stream; charset=utf-8"
