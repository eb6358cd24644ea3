"""Whatever a client sends as a body gets the right 4xx, and the gateway lives on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import InvalidRequest
from router.proxy.body import Peek, peek, rename
from tests.router.gateway import Gateway, code_of
from tests.router.proxy.scripted import answer, raw, scripted

pytestmark = pytest.mark.anyio

INVALID_JSON, INVALID_BODY = (400, "invalid_json"), (400, "invalid_body")
MISSING, INVALID, UNKNOWN = (400, "missing_parameter"), (400, "invalid_parameter"), (404, "model_not_found")
BODIES: list[tuple[bytes, tuple[int, str]]] = [
    (b"", INVALID_JSON),
    (b" ", INVALID_JSON),
    (b"\x00", INVALID_JSON),
    (b"\xff\xfe{\x00}\x00", INVALID_JSON),
    (b'\xef\xbb\xbf{"model": "one"}', INVALID_JSON),
    (b"{", INVALID_JSON),
    (b"{'model': 'one'}", INVALID_JSON),
    (b'{"model": "one"', INVALID_JSON),
    (b'{"model": "one"} x', INVALID_JSON),
    (b'{"model": "one",}', INVALID_JSON),
    (b'{"model": "one", "a": "\xff"', INVALID_JSON),
    (b'{"model": "\\ud800"}', UNKNOWN),
    (b'{"model": "one", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", INVALID_JSON),
    (b'{"model": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", INVALID_JSON),
    (b"[" * 1_000_000, INVALID_BODY),
    (b"--x\r\n", INVALID_JSON),
    (b"[]", INVALID_BODY),
    (b'["model", "one"]', INVALID_BODY),
    (b'"one"', INVALID_BODY),
    (b"null", INVALID_BODY),
    (b"1", INVALID_BODY),
    (b"true", INVALID_BODY),
    (b"{}", MISSING),
    (b'{"Model": "one"}', MISSING),
    (b'{"messages": [{"model": "one"}]}', MISSING),
    (b'{"model": null}', INVALID),
    (b'{"model": ""}', INVALID),
    (b'{"model": ["one"]}', INVALID),
    (b'{"model": {"one": 1}}', INVALID),
    (b'{"model": 1}', INVALID),
    (b'{"model": 1e999}', INVALID),
    (b'{"model": true}', INVALID),
    (b'{"model": " one"}', UNKNOWN),
    (b'{"model": "ONE"}', UNKNOWN),
    (b'{"model": "one\\u0000"}', UNKNOWN),
    (b'{"model": "one\\n\\r\\t\\u001b[31m"}', UNKNOWN),
    ('{"model": "模型 \U0001f600 \u202e"}'.encode(), UNKNOWN),
    (b'{"model": "' + b"x" * 5_000_000 + b'"}', UNKNOWN),
    (b'{"model": "../one"}', UNKNOWN),
    (b'{"model": "one", "model": "two"}', UNKNOWN),
]


async def test_bodies_that_cannot_be_served(tmp_path: Path) -> None:
    """Each has its status and code, a short message, and nothing of it reaches the engine or the books."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for body, expected in BODIES:
            refused = await gateway.client.post("/v1/chat/completions", content=body)
            assert code_of(refused) == expected, body[:80]
            assert len(refused.content) < 700, body[:80]
            assert "\x1b" not in refused.text
            if expected in (MISSING, INVALID, UNKNOWN):
                assert refused.json()["error"]["param"] == "model"
        assert engine.received == []
        assert set(gateway.live.traffic.models) == {"one"}
        assert gateway.live.traffic.models["one"].total == 0
        await _lives(gateway)


async def _lives(gateway: Gateway) -> None:
    assert (await gateway.client.post("/v1/completions", json={"model": "one"})).status_code == 200
    assert gateway.in_flight == 0


@pytest.mark.parametrize("stream", ["true", "false", '"true"', '"yes"', "null", "1", "[]", "1e999", '{"true": true}'])
async def test_odd_stream_flags_are_the_engines_to_judge(tmp_path: Path, stream: str) -> None:
    """They go on as they are; only a true one is timed to its first token."""
    body = f'{{"model": "one", "stream": {stream}}}'.encode()
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        assert (await gateway.client.post("/v1/completions", content=body)).status_code == 200
        assert engine.received[0].body == body
        assert gateway.live.traffic.models["one"].ttft.count == (stream == "true")


async def test_fifty_megabytes_pass(tmp_path: Path) -> None:
    """The default limit is 64 MB; with a length and in chunks, every byte arrives."""
    body = b'{"model": "one", "prompt": "' + b"x" * 50_000_000 + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1_000_000):
            yield body[start : start + 1_000_000]

    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for content in (body, pieces()):
            assert (await gateway.client.post("/v1/completions", content=content)).status_code == 200
            assert engine.received.pop().body == body


LIMIT: dict[str, Any] = {"router": {"max_body_mb": 0.1}}


async def test_a_body_past_the_limit_is_413(tmp_path: Path) -> None:
    """With and without a content-length; one byte less passes; the connection goes on if all was read."""

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 10_000):
            yield b"x" * 10_000

    fits = b'{"model": "one", "prompt": "' + b"x" * (100_000 - 30) + b'"}'
    assert len(fits) == 100_000
    async with scripted(tmp_path, answer(b"{}"), **LIMIT) as (gateway, engine):
        assert (await gateway.client.post("/v1/completions", content=fits)).status_code == 200
        for content in (fits + b" ", pieces(200_000), b"x" * 300_000, pieces(350_000)):
            assert code_of(await gateway.client.post("/v1/completions", content=content)) == (413, "body_too_large")
        assert len(engine.received) == 1
        await _lives(gateway)


@pytest.mark.parametrize("length", ["content-length: 999999999999", "transfer-encoding: chunked"])
async def test_a_body_without_end_is_cut_off(tmp_path: Path, length: str) -> None:
    """After a few times the limit, however much was promised, the connection ends."""
    async with scripted(tmp_path, answer(b"{}"), **LIMIT) as (gateway, _), raw(gateway) as client:
        await client.ask(f"POST /v1/completions HTTP/1.1\nhost: x\n{length}")
        piece = b"x" * 50_000 if "content-length" in length else b"c350\r\n" + b"x" * 50_000 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                client.writer.write(piece)
                await client.writer.drain()
            raise AssertionError("the gateway took fifty megabytes")
        said = await client.rest(5)  # lost if the gateway closes while we send
        assert said == b"" or (said.startswith(b"HTTP/1.1 413") and b"connection: close" in said.lower())
        await _lives(gateway)


async def test_a_client_that_leaves_while_it_sends(tmp_path: Path) -> None:
    """Nobody is asked, nothing is counted."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        async with raw(gateway) as client:
            await client.ask("POST /v1/completions HTTP/1.1\nhost: x\ncontent-length: 100", b'{"model": "one"')
        await _lives(gateway)
        assert len(engine.received) == 1


def test_deep_json_is_refused_alike_before_and_in_renaming() -> None:
    """At every depth: what can be looked into can be renamed, else it is a 400, never a bug."""
    for depth in (10, *range(700, 1010)):
        body = b'{"model": "a", "x": ' + b"[" * depth + b"]" * depth + b"}"
        try:
            found = peek([], body)
            rename(body, found, "b")
        except InvalidRequest as refused:
            assert refused.code == "invalid_json"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(NUMBERS, TEXTS, st.none(), st.lists(NUMBERS | TEXTS, max_size=3), st.dictionaries(TEXTS, NUMBERS))


@given(st.lists(st.tuples(TEXTS, VALUES), max_size=5), TEXTS.filter(bool), TEXTS, st.booleans())
def test_renaming_json_changes_one_value(
    fields: list[tuple[str, Any]], model: str, name: str, ascii_only: bool
) -> None:
    """All other values are the same text, in the same order, whatever they are."""
    others = {key: json.dumps(value, ensure_ascii=ascii_only) for key, value in fields if key != "model"}
    parts = [f"{json.dumps(key)}: {text}" for key, text in others.items()]
    parts.insert(len(fields) // 2, f'"model" : {json.dumps(model, ensure_ascii=ascii_only)}')
    body = ("{" + " , ".join(parts) + "}").encode()
    found = peek([], body)
    assert found == Peek(model, others.get("stream") == "true")
    renamed = rename(body, found, name)
    assert json.loads(renamed) == json.loads(body) | {"model": name}
    assert list(json.loads(renamed)) == list(json.loads(body))
    assert all(text.encode() in renamed for text in others.values())


ODD = [
    b' \n{ "model" :\t"a" , "x": 1 }\r\n ',
    b'{"model":"a","x":1,"x":2}',
    b'{"model":"no","model":"a"}',
    b'{"x":{"model":"no"},"x\\"model":"no","t":"{\\"model\\":\\"no\\"}","model":"a"}',
    b'{"model":"a","\xff":"\xfe"}',
    b'{"model":"a","cut":"\\ud83d","\\udc00":["\\ud83d\\ude00","\\\\ud83d"]}',
]


@pytest.mark.parametrize("body", ODD)
def test_all_but_the_name_stays_byte_by_byte(body: bytes) -> None:
    """Spaces, a key that is there twice, another field of that name, what is no UTF-8, half a character."""
    found = peek([], body)
    assert found.model == "a"
    assert rename(body, found, "b") == body.replace(b'"a"', b'"b"')


def test_a_name_that_is_hard_to_find_is_replaced() -> None:
    """Its key in escapes, or after more of that name than are looked at."""
    many = ",".join(f'"{number}":{{"model":"no"}}' for number in range(100))
    for body in (b'{"\\u006dodel":"a","x":{"model":"no"}}', f'{{{many},"model":"a"}}'.encode()):
        assert json.loads(rename(body, peek([], body), "b")) == json.loads(body) | {"model": "b"}


@pytest.mark.parametrize("number", ["1.0", "1e3", "1E+3", "-0.0", "12345678901234567890123", "0.1000", "1e-400"])
def test_numbers_stay_as_they_were_written(number: str) -> None:
    """Not as another program would write them."""
    body = f'{{"model":"a","z":{number},"b":[{number}]}}'.encode()
    assert rename(body, peek([], body), "b") == body.replace(b'"a"', b'"b"')


@given(st.binary(max_size=200))
def test_no_bytes_break_the_peek(body: bytes) -> None:
    """A model's name, or the reason why not."""
    for kind in (b"application/json", b"multipart/form-data; boundary=x", b"multipart/form-data; boundary=", b"\xff"):
        try:
            assert peek([(b"content-type", kind)], body).model
        except InvalidRequest as refused:
            assert refused.code
