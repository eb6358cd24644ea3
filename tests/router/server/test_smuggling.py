"""Requests that two programs could understand differently: refused or made plain, and never two to the engine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.router.gateway import Gateway, until
from tests.router.proxy.scripted import Raw, Scripted, answer, raw, scripted

pytestmark = pytest.mark.anyio

BODY = b'{"model":"one"}'
SECOND = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-second: yes\r\ncontent-length: 15\r\n\r\n" + BODY
"""What must not reach the engine when it is hidden in another request."""

LINE = b"POST /v1/completions HTTP/1.1\r\n"
HOST = b"host: x\r\n"
SIZED = b"content-length: %d\r\n" % len(BODY)
CHUNKS = b"f\r\n" + BODY + b"\r\n0\r\n\r\n"


def post(*headers: bytes, body: bytes = BODY) -> bytes:
    return LINE + HOST + b"".join(one + b"\r\n" for one in headers) + b"\r\n" + body


CHUNKED = b"transfer-encoding: chunked"
FRAMINGS = {
    "CL.TE": post(b"content-length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "TE.CL": post(CHUNKED, b"content-length: 4", body=CHUNKS),
    "both agree": post(CHUNKED, SIZED.strip(), body=CHUNKS),
    **{
        f"TE {value!r}": post(b"transfer-encoding:" + value, body=CHUNKS)
        for value in (
            *(b"xchunked", b"identity", b"chunked, identity", b"gzip, chunked", b"identity, chunked", b"chunk"),
            *(b"chunked, chunked", b"chunked;q=1", b'"chunked"', b"\x0bchunked", b"chunked\x00", b"", b"chunked,"),
        )
    },
    "TE twice": post(CHUNKED, CHUNKED, body=CHUNKS),
    "TE and identity": post(CHUNKED, b"transfer-encoding: identity", body=CHUNKS),
    "identity and TE": post(b"transfer-encoding: identity", CHUNKED, body=CHUNKS),
    "TE with a space": post(b"transfer-encoding : chunked", body=CHUNKS),
    "TE folded": post(b"transfer-encoding:\r\n chunked", body=CHUNKS),
    "TE in HTTP/1.0": post(CHUNKED, body=CHUNKS).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "lengths that differ": post(b"content-length: 15", b"content-length: 0"),
    "a length twice": post(b"content-length: 15", b"content-length: 15"),
    **{
        f"length {value!r}": post(b"content-length:" + value)
        for value in (
            *(b"-1", b"+15", b"0xf", b"15, 15", b"15,0", b"1_5", b"1 5", b"", b"15\x00", b"1e1", b"15;"),
            *(b"18446744073709551631", b"99999999999999999999999999", b"\xb2"),
        )
    },
    "length with a space": post(b"content-length : 15"),
    "folded header": post(b"x-a: b\r\n c: d", SIZED.strip()),
    "header with no colon": post(b"x-a", SIZED.strip()),
    "header with no name": post(b": b", SIZED.strip()),
    "space before the first header": LINE + b" " + HOST + SIZED + b"\r\n" + BODY,
    "bare LF": (LINE + HOST + SIZED).replace(b"\r\n", b"\n") + b"\n" + BODY,
    "one bare LF": LINE + b"x-a: b\nx-c: d\r\n" + HOST + SIZED + b"\r\n" + BODY,
    "bare CR": LINE + b"x-a: b\rx-c: d\r\n" + HOST + SIZED + b"\r\n" + BODY,
    "NUL in a value": post(b"x-a: b\x00c", SIZED.strip()),
    "NUL in a name": post(b"x\x00a: b", SIZED.strip()),
    "control in a value": post(b"x-a: b\x01c", SIZED.strip()),
    **{
        f"chunks {chunks!r}": post(CHUNKED, body=chunks)
        for chunks in (
            *(b"f;\r\n" + BODY + b"\r\n0\r\n\r\n", b"f;a\n" + BODY + b"\r\n0\r\n\r\n", b"0xf\r\n" + BODY),
            *(b"f \r\n" + BODY + b"\r\n0\r\n\r\n", b"-f\r\n" + BODY, b"+f\r\n" + BODY, b"\r\n" + BODY),
            *(b"ffffffffffffffff1\r\n" + BODY, b"1000000000000000f\r\n" + BODY, b"f\n" + BODY + b"\n0\n\n"),
            *(b"f\r\n" + BODY + b"xx\r\n0\r\n\r\n", b"f\r\n" + BODY + b"0\r\n\r\n", b"f;\x00\r\n" + BODY, b"g\r\n"),
            b"f\r\n" + BODY + b"\r\n0\r\ncontent-length: 5\r\n\r\n",
        )
    },
    "no host": LINE + SIZED + b"\r\n" + BODY,
    "two hosts": post(b"host: y", SIZED.strip()),
    "the same host twice": post(b"host: x", SIZED.strip()),
    **{
        f"host {value!r}": LINE + b"host: " + value + b"\r\n" + SIZED + b"\r\n" + BODY
        for value in (b"x y", b"x/y", b"a@b", b"x\x00", b"x#y", b"x?y", b"\xff")
    },
    "HTTP/0.9": LINE.replace(b"1.1", b"0.9") + HOST + SIZED + b"\r\n" + BODY,
    "HTTP/0.9 without a version": b"POST /v1/completions\r\n" + HOST + SIZED + b"\r\n" + BODY,
    "HTTP/2.0": LINE.replace(b"1.1", b"2.0") + HOST + SIZED + b"\r\n" + BODY,
    "HTTP/1.2": LINE.replace(b"1.1", b"1.2") + HOST + SIZED + b"\r\n" + BODY,
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no method": b"/v1/completions HTTP/1.1\r\n" + HOST + SIZED + b"\r\n" + BODY,
    "unknown method": LINE.replace(b"POST", b"POSTS") + HOST + SIZED + b"\r\n" + BODY,
    "lower case method": LINE.replace(b"POST", b"post") + HOST + SIZED + b"\r\n" + BODY,
    "tab after the method": LINE.replace(b"POST ", b"POST\t") + HOST + SIZED + b"\r\n" + BODY,
    "space in the target": LINE.replace(b"completions", b"comple tions") + HOST + SIZED + b"\r\n" + BODY,
    "space in the query": LINE.replace(b"completions", b"completions?a b") + HOST + SIZED + b"\r\n" + BODY,
    "tab in the query": LINE.replace(b"completions", b"completions?a\tb") + HOST + SIZED + b"\r\n" + BODY,
    "NUL in the target": LINE.replace(b"completions", b"completions\x00") + HOST + SIZED + b"\r\n" + BODY,
    "bytes in the target": LINE.replace(b"completions", b"completions\xff") + HOST + SIZED + b"\r\n" + BODY,
    "tunnel": b"CONNECT one:80 HTTP/1.1\r\nhost: one:80\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100 + b"\r\n\r\n",
}


async def test_what_has_two_meanings_is_refused(tmp_path: Path) -> None:
    """400 in our shape, the connection ends, and neither it nor what follows it reaches the engine."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for name, asked in FRAMINGS.items():
            async with raw(gateway) as client:
                client.writer.write(asked + SECOND)
                said = await client.rest()
            head, _, body = said.partition(b"\r\n\r\n")
            assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n"), (name, said)
            assert head.lower().count(b"connection: close") == 1, name
            assert b"x-request-id" in head
            error = json.loads(body)["error"]  # and nothing after it
            assert error["code"] == "invalid_request", name
            assert error["type"] == "invalid_request_error"
            assert engine.received == [], name
        await _lives(gateway, engine)


@pytest.mark.parametrize("habit", [b"", b"connection: keep-alive\r\n"])
async def test_after_a_good_request_it_is_the_same(tmp_path: Path, habit: bytes) -> None:
    """A connection whose first request was plain is not trusted for it."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for name, asked in FRAMINGS.items():
            async with raw(gateway) as client:
                client.writer.write(LINE + HOST + habit + SIZED + b"\r\n" + BODY)
                assert (await client.head()).startswith("http/1.1 200")
                await client.reader.readexactly(2)
                client.writer.write(asked.replace(HOST, HOST + habit) + SECOND)
                said = await client.rest()
            assert said.startswith(b"HTTP/1.1 400 Bad Request\r\n"), (name, said)
            assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_request", name
            assert len(engine.received) == 1, name
            engine.received.clear()


@pytest.mark.parametrize("name", ["CL.TE", "TE twice", "no host", "length b'+15'", "space in the query", "tunnel"])
async def test_byte_by_byte_it_is_the_same(tmp_path: Path, name: str) -> None:
    """However the network cuts it."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        for byte in FRAMINGS[name] + SECOND:
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.rest()).startswith(b"HTTP/1.1 400")
        await _lives(gateway, engine)


async def test_what_was_asked_before_is_answered(tmp_path: Path) -> None:
    """Requests sent ahead of a broken one get their answers; then the connection ends."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        good = post(SIZED.strip())
        client.writer.write(good + good + FRAMINGS["CL.TE"] + SECOND)
        said = await client.rest()
        assert said.count(b"HTTP/1.1 200 OK") == 2
        assert said.count(b"HTTP/1.1 ") == 2
        assert len(engine.received) == 2
        assert gateway.in_flight == 0


async def test_nothing_is_read_after_the_last_request(tmp_path: Path) -> None:
    """Who says connection: close has said it: what follows is no request."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for last in (post(SIZED.strip(), b"connection: close"), post(SIZED.strip()).replace(b"1.1", b"1.0", 1)):
            async with raw(gateway) as client:
                client.writer.write(last + SECOND)
                assert (await client.rest()).count(b"HTTP/1.1 ") == 1
        assert len(engine.received) == 2
        assert all(one.all("x-second") == [] for one in engine.received)


async def test_after_a_refusal_the_connection_is_where_it_should_be(tmp_path: Path) -> None:
    """404, 405, 400 and 413 leave the rest of their bodies behind: the next request is the next request."""
    refused = {
        404: b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(SECOND) + SECOND,
        405: b"POST /health HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(SECOND) + SECOND,
        400: post(b"content-length: %d" % len(SECOND), body=SECOND),
        413: post(b"content-length: %d" % (3 * len(SECOND) * 100), body=SECOND * 300),
    }
    async with scripted(tmp_path, answer(b"{}"), router={"max_body_mb": 0.01}) as (gateway, engine):
        for status, asked in refused.items():
            async with raw(gateway) as client:
                client.writer.write(asked + post(SIZED.strip(), b"x-next: yes", b"connection: close"))
                said = await client.rest()
                assert said.startswith(b"HTTP/1.1 %d" % status), said[:100]
                assert said.count(b"HTTP/1.1 ") == 2
            (one,) = engine.received
            assert one.all("x-next") == [b"yes"]
            engine.received.clear()


@pytest.mark.parametrize("target", [b"/v1/completions", b"http://x/v1/completions"], ids=["direct", "asgi"])
async def test_trailers_are_no_headers(tmp_path: Path, target: bytes) -> None:
    """What comes after a body cannot change what was said before it, and stays here."""
    trailers = b"x-request-id: evil\r\nauthorization: Bearer evil\r\nx-late: yes\r\nhost: y\r\n"
    asked = post(CHUNKED, b"x-request-id: good", body=b"f\r\n" + BODY + b"\r\n0\r\n" + trailers + b"\r\n")
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        client.writer.write(asked.replace(b"/v1/completions", target, 1))
        assert "x-request-id: good" in await client.head()
        (one,) = engine.received
        assert one.all("x-request-id") == [b"good"]
        assert one.all("x-late") == one.all("authorization") == []
        assert len(one.all("host")) == 1


NORMALISED = {
    "absolute form": (b"http://elsewhere:1/v1/completions?a=1", b"/v1/completions?a=1"),
    "absolute form with user": (b"http://u:p@x/v1/completions", b"/v1/completions"),
    "escapes": (b"/v1%2f%63ompletions?a=%2f", b"/v1/completions?a=%2f"),
    "fragment": (b"/v1/completions#x", b"/v1/completions"),
    "fragment after the query": (b"/v1/completions?a=1#x", b"/v1/completions?a=1"),
    "query with odd but legal bytes": (b'/v1/completions?a=%00%0d%0a&b=\\"<>', b'/v1/completions?a=%00%0d%0a&b=\\"<>'),
}


async def test_what_is_only_odd_is_made_plain(tmp_path: Path) -> None:
    """One request, whose target is that of the path that was routed."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for name, (target, expected) in NORMALISED.items():
            async with raw(gateway) as client:
                client.writer.write(post(SIZED.strip()).replace(b"/v1/completions", target, 1))
                assert (await client.head()).startswith("http/1.1 200"), name
            assert engine.received.pop().target == expected, name
            assert engine.received == []


OFFERS = [
    (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAARAAAAAAAIAAAAA"),
    (b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="),
    (b"connection: keep-alive, Upgrade", b"upgrade: TLS/1.0"),
]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("split", [False, True])
async def test_offers_to_speak_another_protocol_are_declined(
    tmp_path: Path, offer: tuple[bytes, ...], split: bool
) -> None:
    """Java's and curl's clients make them with a body: it is read as the body, and the next request as the next."""
    asked = post(*offer, SIZED.strip()) + post(*offer, CHUNKED, body=CHUNKS) + post(SIZED.strip(), b"x-last: yes")
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        for piece in [asked[at : at + 1] for at in range(len(asked))] if split else [asked]:
            client.writer.write(piece)
            await asyncio.sleep(0)
        for _ in range(3):
            assert (await client.head()).startswith("http/1.1 200")
            await client.reader.readexactly(2)
        assert [one.body for one in engine.received] == [BODY] * 3
        for one in engine.received:
            assert one.all("upgrade") == one.all("connection") == one.all("http2-settings") == []
        assert engine.received[2].all("x-last") == [b"yes"]


PATHS = (
    *("/v1/%2e%2e/v1/completions", "/v1//completions", "//v1/completions", "/v1/completions/"),
    *("/v1/completions;a=b", "/v1;/completions", "/v1/./completions", "/v1/x/../completions", "/v1/completions%3fa"),
    *("/V1/completions", "/v1/completions%00", "/v1/completions%20", "*", "/health/../v1/completions"),
    *("/health;/../v1/completions", "/health%2f..%2fv1/completions", "/health%23/v1/completions", "/v1/completions,"),
)  # fmt: skip


@pytest.mark.usefixtures("each_door")
async def test_the_key_cannot_be_gone_round(tmp_path: Path) -> None:
    """The guard looks at the path that is routed: without a key nothing but /health is answered, in no disguise."""
    key = {"api_key_env": "K"}
    async with scripted(tmp_path, answer(b"{}"), environment={"K": "right"}, router=key) as (gateway, engine):
        for path in (
            *PATHS,
            "/v1/completions",
            "http://x/v1/completions",
            "http://x/health/../v1/completions",
            "/models",
        ):
            for hidden in (b"x-a: b", b"host: x", b"connection: upgrade\r\nupgrade: h2c", b"x-forwarded-uri: /health"):
                asked = post(SIZED.strip(), hidden).replace(b"/v1/completions", path.encode(), 1)
                async with raw(gateway) as client:
                    client.writer.write(asked)
                    status = int((await client.reader.readline()).split(b" ")[1])
                assert status in (400, 401), (path, hidden)
        assert engine.received == []


@pytest.mark.usefixtures("each_door")
async def test_odd_paths_are_no_engine_paths(tmp_path: Path) -> None:
    """404, and the engine sees none of them."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for path in PATHS:
            async with raw(gateway) as client:
                client.writer.write(post(SIZED.strip()).replace(b"/v1/completions", path.encode(), 1))
                assert (await client.head()).split(" ")[1] in ("404", "405", "400"), path
        assert engine.received == []


async def test_a_refused_key_needs_no_body(tmp_path: Path) -> None:
    """Told before the body comes to a client that asks; else after it, and nothing of it is kept."""
    key = {"api_key_env": "K"}
    async with scripted(tmp_path, answer(b"{}"), environment={"K": "right"}, router=key) as (gateway, engine):
        async with raw(gateway) as client:
            client.writer.write(post(SIZED.strip(), b"expect: 100-continue", body=b""))
            assert (await client.rest()).startswith(b"HTTP/1.1 401")
        async with raw(gateway) as client:
            client.writer.write(post(b"content-length: 1000000", body=b"x" * 999_999))
            await asyncio.sleep(0.05)
            client.writer.write(b"x" + post(b"authorization: Bearer right", SIZED.strip()))
            assert (await client.head()).startswith("http/1.1 401")
            await until(lambda: len(engine.received) == 1)


async def test_methods_that_are_for_no_gateway(tmp_path: Path) -> None:
    """TRACE, OPTIONS * and the like: 404 or 405, nothing is echoed."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for line in (
            b"TRACE /v1/completions",
            b"TRACE /health",
            b"SOURCE /v1/completions",
            b"PURGE /",
            b"CONNECT /v1/completions",
        ):
            async with raw(gateway) as client:
                client.writer.write(line + b" HTTP/1.1\r\nhost: x\r\nx-secret: echo\r\nconnection: close\r\n\r\n")
                said = await client.rest()
                assert said.split(b" ")[1] in (b"404", b"405"), line
                assert b"echo" not in said
        assert engine.received == []


async def _lives(gateway: Gateway, engine: Scripted) -> None:
    assert (await gateway.client.post("/v1/completions", content=BODY)).status_code == 200
    assert len(engine.received) == 1
    assert gateway.in_flight == 0


async def test_an_engines_answer_cannot_be_split(tmp_path: Path) -> None:
    """Whatever an engine puts into a header, the client sees one answer."""
    for value in ("a\rb: c", "a\nb: c", "a\x00b", "a\r\n\r\nHTTP/1.1 200 OK"):
        async with (
            scripted(tmp_path, answer(b"{}", "200 OK", f"x-evil: {value}")) as (gateway, _),
            raw(gateway) as client,
        ):
            await Raw.post(client, "/v1/completions", {"model": "one"})
            head = await client.head()
            assert head.count("http/1.1 ") == 1
            assert "\nb: c" not in head
