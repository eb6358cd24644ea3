"""Which headers travel, whatever there are: against the rule in its plainest words."""

from __future__ import annotations

from collections.abc import Set

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from router.proxy.headers import ASKED, NOT_FORWARDED, NOT_RETURNED, asked_at, request_head, response_headers
from runtime.engines.spec import EngineSpec

NAMES = [ASKED, b"connection", b"te", b"x-foo", b"x-bar", b"x-request-id", b"content-length", b"host", b"authorization"]
VALUES = [b"", b"close", b"keep-alive", b"x-foo", b"X-Foo, x-bar", b"keep-alive, x-bar", b"v"]
HEADERS = some.lists(some.tuples(some.sampled_from(NAMES), some.sampled_from(VALUES)), max_size=6)
SPEC = EngineSpec("one", "vllm", "m", "127.0.0.1", 1, "http://127.0.0.1:1", ("m",), api_key="k")

Pairs = list[tuple[bytes, bytes]]


def travelling(headers: Pairs, dropped: Set[bytes]) -> Pairs:
    listed = b",".join(value for name, value in headers if name == b"connection").lower()
    hop = {word.strip() for word in listed.split(b",")}
    return [one for one in headers if one[0] not in dropped | hop]


@given(HEADERS)
@example([(b"connection", b""), (b"x-bar", b"1"), (b"connection", b"x-bar")])
def test_to_the_engine(headers: Pairs) -> None:
    """All but those of one hop and the client's key; the id and the engine's own key come last."""
    head = request_head("POST", b"/v1/x?y", headers, SPEC, b"engine:1", b"id", 5)
    start, *lines, end, nothing = head.split(b"\r\n")
    assert (start, end, nothing) == (b"POST /v1/x?y HTTP/1.1", b"", b"")
    sent = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    ours = [(b"x-request-id", b"id"), (b"content-length", b"5"), (b"authorization", b"Bearer k")]
    assert sent == [(b"host", b"engine:1"), *travelling(headers, NOT_FORWARDED), *ours]


def test_to_the_next_gateway() -> None:
    """It learns when the client asked, in a word that means the same to it."""
    head = request_head("POST", b"/", [(ASKED, b"7")], SPEC, b"next:1", b"id", 0, asked=12.345678)
    told = [line.partition(b": ") for line in head.split(b"\r\n") if line.startswith(ASKED)]
    assert [asked_at([(name, value)], 99.0) for name, _, value in told] == [12.345678]


@pytest.mark.parametrize("said", [b"", b"-1", b"nan", b"inf", b"1e3", b"9999", b"0x1", b"1" * 400, b" 1", b"\xd9\xa1"])
def test_what_cannot_be_is_not_believed(said: bytes) -> None:
    """A client may say it, too: nobody waits longer for that."""
    assert asked_at([(ASKED, said)], 99.0) == 99.0
    assert asked_at([], 99.0) == 99.0


@given(HEADERS)
@example([(b"connection", b"x-request-id"), (b"x-request-id", b"theirs")])
def test_to_the_client(headers: Pairs) -> None:
    """All but those of one hop; the engine's own id, if it gave one."""
    kept = travelling(headers, NOT_RETURNED)
    named = any(name == b"x-request-id" for name, _ in kept)
    ours = [] if named else [(b"x-request-id", b"id")]
    assert response_headers(headers, b"id", b"a", failed=False) == [*kept, *ours, (b"x-torpor-instance", b"a")]
