"""Compressed answers stay compressed, and are said to be.

Unpacking costs the gateway time, and a body whose header no longer fits cannot be read at all.
"""

from __future__ import annotations

import gzip
import zlib

import pytest

from tests.conformance.hop import COMPLETION, DONE, LAST, STREAM_HEAD, Hop, delta
from tests.router.proxy.scripted import answer, chunk


def test_what_a_client_accepts_reaches_the_engine(hop: Hop) -> None:
    """As the client wrote it."""
    hop.post(hop.body(), "Accept-Encoding: gzip;q=0.5, zstd")
    assert hop.request.all("accept-encoding") == [b"gzip;q=0.5, zstd"]


def test_nothing_is_accepted_in_a_clients_name(hop: Hop) -> None:
    """A client that names no encoding may get none."""
    hop.post()
    assert hop.request.all("accept-encoding") in ([], [b"identity"])


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_passes_as_it_is(hop: Hop, encoding: str) -> None:
    """The same bytes, and the header that says how to read them."""
    packed = gzip.compress(COMPLETION) if encoding == "gzip" else zlib.compress(COMPLETION)
    hop.answers(answer(packed, "200 OK", f"content-encoding: {encoding}"))
    reply = hop.post(hop.body(), f"Accept-Encoding: {encoding}")
    assert reply.header("content-encoding") == encoding
    assert reply.body() == packed


def test_a_stream_passes_as_it_is(hop: Hop) -> None:
    """Each piece packed on its own, as servers do that flush."""
    packer = zlib.compressobj(wbits=31)
    pieces = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in (delta("a"), DONE)]
    pieces.append(packer.flush())
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    hop.answers(head + b"".join(map(chunk, pieces)) + LAST)
    reply = hop.post(hop.body(stream=True), "Accept-Encoding: gzip")
    assert reply.header("content-encoding") == "gzip"
    body = reply.body()
    assert body == b"".join(pieces)
    assert gzip.decompress(body) == delta("a") + DONE
