"""Bodies that come compressed: made plain within the limit, because the gateway must read them, and engines cannot."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from typing import Any

from router.errors import InvalidRequest, TooLarge, UnknownEncoding
from router.proxy.buffered import Share
from router.proxy.headers import Headers

STEP = 1_048_576
"""Bytes that are made plain at a time."""

_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
ACCEPTED = ("gzip", "deflate", "identity")


def encodings_of(headers: Headers) -> list[str]:
    """How the body was encoded, first to last. Raises ``UnknownEncoding``."""
    text = b",".join(value for name, value in headers if name == b"content-encoding").decode("latin-1")
    named = [one.strip().lower() for one in text.split(",") if one.strip()]
    found = [one for one in named if one != "identity"]
    if len(found) > 1 or any(one not in _WINDOW for one in found):
        raise UnknownEncoding(
            f"The body's encoding is {text[:100]!r}. Known are {', '.join(ACCEPTED)}, one at a time.",
            "unknown_encoding",
        )
    return found


async def decode(body: bytes, encodings: Sequence[str], limit: int, share: Share) -> bytes:
    """The plain body; ``share`` counts it. Raises ``TooLarge``, ``InvalidRequest``, ``Unavailable``."""
    (encoding,) = encodings
    inflater = _Inflater(body, _WINDOW[encoding])
    pieces: list[bytes] = []
    size = 0
    while not inflater.is_done:
        piece = await asyncio.to_thread(inflater.step)  # a megabyte takes milliseconds
        size += len(piece)
        if size > limit:
            raise TooLarge(
                f"The body is larger than {limit / 1e6:g} MB (router.max_body_mb) once it is decoded.",
                "body_too_large",
            )
        share.take(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


class _Inflater:
    """Piece by piece, so that a small body that stands for a huge one is noticed before it is huge."""

    def __init__(self, body: bytes, window: int) -> None:
        self.is_done = False
        self._body = memoryview(body)
        self._at = 0
        self._rest = b""
        self._window = window
        self._inner: Any = zlib.decompressobj(window)

    def step(self) -> bytes:
        """At most ``STEP`` bytes. Raises ``InvalidRequest``."""
        made = bytearray()
        try:
            while len(made) < STEP and not self.is_done:
                made += self._inflate(STEP - len(made))
        except zlib.error as broken:
            raise _broken(str(broken)) from None
        return bytes(made)

    def _inflate(self, most: int) -> bytes:
        if not self._rest:
            self._rest = bytes(self._body[self._at : self._at + STEP])
            self._at += STEP
        made: bytes = self._inner.decompress(self._rest, most)
        self._rest = self._inner.unconsumed_tail
        is_last = self._at >= len(self._body)
        if self._inner.eof:
            self._rest = self._inner.unused_data
            self.is_done = not self._rest and is_last
            self._inner = zlib.decompressobj(self._window)  # it may be several, one after the other
        elif not made and not self._rest and is_last:
            raise _broken("it ends too early")
        return made


def _broken(problem: str) -> InvalidRequest:
    return InvalidRequest(f"The body cannot be decoded: {problem}.", "invalid_encoding")
