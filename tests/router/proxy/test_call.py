"""What any ASGI server may hand over cannot become two requests to an engine."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import httptools
from hypothesis import given
from hypothesis import strategies as st

from router.errors import InvalidRequest
from router.proxy.call import call_of
from router.proxy.headers import request_head
from runtime.engines.spec import EngineSpec
from tests.router.proxy.scripted import Received

SPEC = EngineSpec("one", "openai", "one", "x", 80, "http://x", ("one",))
ODD = st.sampled_from(
    ["\r\n", "\n", "\r", " ", "\x00", "\t", "#", "?", "%0d%0a", "%", "é", "\u2028", "/", "..", "\x7f"]
)
TEXT = st.lists(ODD | st.text(max_size=4), max_size=4).map("".join)
BYTES = TEXT.map(lambda text: text.encode("utf-8", "replace"))


async def never(*_: Any) -> Any:
    raise AssertionError("nothing is read or sent")


@given(TEXT, BYTES, st.lists(st.tuples(st.sampled_from([b"x-a", b"x-b"]) | BYTES, BYTES), max_size=3))
def test_one_call_is_one_request(path: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Refused, or one request of that very path and query."""
    path = "/v1/" + path.encode("utf-8", "replace").decode()
    scope = {"method": "POST", "path": path, "query_string": query, "headers": [(b"x-c", b"y"), *headers]}
    try:
        call = call_of(scope, never, never)
    except InvalidRequest:
        return
    head = request_head("POST", call.target, call.headers, SPEC, b"x", b"id", 0)
    assert head.count(b"\r\n\r\n") == 1 and head.endswith(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")
    assert len(lines) <= 6 + len(headers)
    assert not any(b"\n" in line or b"\r" in line or b"\0" in line for line in lines)
    target, _, sent = call.target.partition(b"?")
    assert lines[0] == b"POST " + call.target + b" HTTP/1.1"
    assert b" " not in call.target
    assert unquote(target.decode()) == path
    assert sent == query


def test_an_ordinary_call_is_understood() -> None:
    """And parsed to what it was."""
    scope = {"method": "POST", "path": "/v1/x y", "query_string": b"a=%20", "headers": [(b"x-a", b"b\xff")]}
    call = call_of(scope, never, never)
    got = Received(1)
    httptools.HttpRequestParser(got).feed_data(request_head("POST", call.target, call.headers, SPEC, b"x", b"id", 0))
    assert got.target == b"/v1/x%20y?a=%20"
    assert got.all("x-a") == [b"b\xff"]
