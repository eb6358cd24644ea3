"""An engine's error is passed on as it is: status, body, and what it says about trying again.

Clients choose by it what to do; a gateway that words it anew takes that from them.
"""

from __future__ import annotations

import pytest

from tests.conformance.hop import CHAT, MESSAGES, Hop
from tests.router.proxy.scripted import answer

BODY = b'{"object": "error",\n "message": "too long \\u00e9", "type": "BadRequestError", "param": null, "code": 400}'
STATUSES = (
    *("400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found", "408 Request Timeout", "409 Conflict"),
    *("413 Too Large", "418 I'm a teapot", "422 Unprocessable Entity", "429 Too Many Requests"),
    *("500 Internal Server Error", "501 Not Implemented", "503 Service Unavailable", "504 Gateway Timeout"),
)


def code(status: str) -> str:
    return status[:3]


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("status", STATUSES, ids=code)
def test_an_error_is_passed_on(hop: Hop, status: str, streaming: bool) -> None:
    """Also in place of a stream."""
    hop.answers(answer(BODY, status))
    reply = hop.post(hop.body(stream=streaming))
    assert reply.status == int(status[:3])
    assert reply.body() == BODY


def test_an_error_in_place_of_a_stream_is_no_stream(hop: Hop) -> None:
    """A client that is promised events looks for no error."""
    hop.answers(answer(BODY, "400 Bad Request"))
    assert hop.post(hop.body(stream=True)).header("content-type") == "application/json"


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"], ids=code)
@pytest.mark.parametrize("when", ["7", "Wed, 21 Oct 2026 07:28:00 GMT"], ids=["seconds", "date"])
def test_retry_after_is_passed_on(hop: Hop, status: str, when: str) -> None:
    """The engine knows when; the gateway does not."""
    hop.answers(answer(BODY, status, f"Retry-After: {when}"))
    assert hop.post().header("retry-after") == when


def test_a_page_is_passed_on(hop: Hop) -> None:
    """What stands before an engine may answer in HTML; it says more than a guess."""
    page = b"<html><h1>502 Bad Gateway</h1></html>"
    hop.answers(answer(page, "502 Bad Gateway").replace(b"application/json", b"text/html"))
    reply = hop.post()
    assert (reply.status, reply.header("content-type"), reply.body()) == (502, "text/html", page)


def test_an_error_without_a_body_is_passed_on(hop: Hop) -> None:
    hop.answers(answer(b"", "500 Internal Server Error"))
    reply = hop.post()
    assert (reply.status, reply.body()) == (500, b"")


def test_anthropics_errors_are_passed_on(hop: Hop) -> None:
    """In the shape that the engine gave them."""
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"full"}}'
    hop.answers(answer(body, "529 Overloaded"))
    reply = hop.post(path=MESSAGES)
    if reply.status in (404, 405):
        pytest.skip(f"the gateway has no {MESSAGES}")
    assert (reply.status, reply.body()) == (529, body)


@pytest.mark.parametrize("status", ["400 Bad Request", "500 Internal Server Error", "503 Unavailable"], ids=code)
def test_the_engine_is_asked_once(hop: Hop, status: str) -> None:
    """There is no other engine here: asking the same one again makes a full one fuller, and a client wait."""
    hop.answers(answer(BODY, status))
    hop.post(path=CHAT).body()
    assert len(hop.received) == 1
