"""Bodies that come compressed are understood within the limit, and go on plain."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.errors import InvalidRequest, TooLarge, Unavailable, UnknownEncoding
from router.proxy.buffered import Buffered
from router.proxy.encoding import STEP, decode, encodings_of
from tests.router.gateway import code_of
from tests.router.proxy.scripted import answer, raw, scripted

pytestmark = pytest.mark.anyio

BODY = b'{"model": "one", "n": 1.0, "prompt": "' + b"x" * 5_000 + b'"}'
PACKED = {"gzip": gzip.compress(BODY), "x-gzip": gzip.compress(BODY), "deflate": zlib.compress(BODY)}


@pytest.mark.usefixtures("each_door")
async def test_compressed_bodies_are_understood(tmp_path: Path) -> None:
    """The engine gets the plain body, and no word of the encoding; the rest is as it was."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        written = [
            (each, packed) for name, packed in PACKED.items() for each in (name, name.upper(), f"identity, {name}")
        ]
        for encoding, packed in written:
            headers = {"content-encoding": encoding, "x-other": "kept"}
            reply = await gateway.client.post("/v1/completions", content=packed, headers=headers)
            assert reply.status_code == 200
            got = engine.received.pop()
            assert got.body == BODY
            assert got.all("content-encoding") == got.all("transfer-encoding") == []
            assert got.all("content-length") == [str(len(BODY)).encode()]
            assert got.all("x-other") == [b"kept"]
        assert gateway.in_flight == 0


@pytest.mark.usefixtures("each_door")
async def test_unknown_encodings_are_named(tmp_path: Path) -> None:
    """415 with those that are known, even if the body is plain; the connection goes on."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        for encoding in ("br", "zstd", "compress", "gzip, br", "gzip, gzip", "nonsense", "gzip;q=1"):
            head = f"POST /v1/completions HTTP/1.1\nhost: x\ncontent-encoding: {encoding}\ncontent-length: {len(BODY)}"
            await client.ask(head, BODY)
            said = await client.head()
            assert said.startswith("http/1.1 415")
            assert "accept-encoding: gzip, deflate, identity\r\n" in said
            length = int(said.split("content-length: ")[1].split("\r\n")[0])
            error = json.loads(await client.reader.readexactly(length))["error"]
            assert error["code"] == "unknown_encoding"
            assert "gzip, deflate" in error["message"]
        assert engine.received == []


@pytest.mark.usefixtures("each_door")
async def test_bodies_that_cannot_be_decoded(tmp_path: Path) -> None:
    """400 and the reason; never a guess."""
    packed = PACKED["gzip"]
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for body in (b"", BODY, packed[:-1], packed[:20], packed + b"x", b"\x1f\x8b", packed[:-8] + b"\0" * 8):
            reply = await gateway.client.post("/v1/completions", content=body, headers={"content-encoding": "gzip"})
            assert code_of(reply) == (400, "invalid_encoding"), body[:10]
        assert engine.received == []


@pytest.mark.usefixtures("each_door")
async def test_a_small_body_that_stands_for_a_huge_one(tmp_path: Path) -> None:
    """413, and what was made plain of it until then is a few megabytes at most."""
    bomb = gzip.compress(b"x" * 50_000_000)
    assert len(bomb) < 100_000
    async with scripted(tmp_path, answer(b"{}"), router={"max_body_mb": 1}) as (gateway, engine):
        reply = await gateway.client.post("/v1/completions", content=bomb, headers={"content-encoding": "gzip"})
        assert code_of(reply) == (413, "body_too_large")
        assert engine.received == []


async def test_the_loop_goes_on_meanwhile(tmp_path: Path) -> None:
    """A large body is made plain elsewhere, step by step, and counted step by step."""
    buffered = Buffered(100_000_000, 100_000_000)
    ticks: list[int] = []
    with buffered.share() as share:
        packed = gzip.compress(b"x" * (20 * STEP))
        task = asyncio.create_task(decode(packed, ["gzip"], 10**9, share))
        while not task.done():
            await asyncio.sleep(0)
            ticks.append(buffered.held)
        assert len(await task) == buffered.held == 20 * STEP
    assert buffered.held == 0
    assert len(set(ticks)) > 5


async def decoded(body: bytes, encoding: str, limit: int = 10**9, most: int = 10**9) -> bytes:
    with Buffered(most, most).share() as share:
        return await decode(body, [encoding], limit, share)


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=2_000), min_size=1, max_size=5), st.integers(0, 9))
def test_whatever_was_compressed_comes_out(pieces: list[bytes], level: int) -> None:
    """In one part or in several, one after the other."""
    packed = b"".join(gzip.compress(piece, level) for piece in pieces)
    plain = b"".join(pieces)
    assert asyncio.run(decoded(packed, "gzip")) == plain
    assert asyncio.run(decoded(zlib.compress(plain, level), "deflate", limit=len(plain), most=len(plain))) == plain
    if plain:
        for more, error in ({"limit": len(plain) - 1}, TooLarge), ({"most": len(plain) - 1}, Unavailable):
            with pytest.raises(error):
                asyncio.run(decoded(packed, "gzip", **more))


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_no_bytes_break_it(body: bytes) -> None:
    """A body, or the reason why not."""
    for encoding in ("gzip", "deflate"):
        try:
            asyncio.run(decoded(body, encoding))
        except InvalidRequest as refused:
            assert refused.code == "invalid_encoding"


@pytest.mark.parametrize(
    ("values", "found"),
    [([], []), ([b""], []), ([b"identity"], []), ([b"GZIP"], ["gzip"]), ([b"identity", b" gzip "], ["gzip"])],
)
def test_names_of_encodings(values: list[bytes], found: list[str]) -> None:
    """As they are written, in one header or in several."""
    assert encodings_of([(b"content-encoding", value) for value in values]) == found


def test_two_encodings_are_too_many() -> None:
    """Nobody sends that in good faith."""
    with pytest.raises(UnknownEncoding):
        encodings_of([(b"content-encoding", b"gzip"), (b"content-encoding", b"deflate")])
