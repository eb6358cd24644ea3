"""Which headers travel between client and engine: all but those of one hop (RFC 9110, section 7.6.1) and keys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence, Set
from functools import partial

from runtime.engines.spec import EngineSpec

Headers = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
ASKED = b"x-torpor-asked"
"""From a gateway that leaves to the next: when a client asked, on the monotonic clock of their machine."""

NOT_FORWARDED = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"authorization",
    b"x-api-key",
    b"x-request-id",
    ASKED,
}
"""A client's key is for the gateway, and stays here."""

NOT_RETURNED = HOP_BY_HOP | {b"x-torpor-instance", b"x-torpor-error-source"}
"""Another Torpor's marks are about instances that this one's clients do not know."""

REQUEST_ID = b"x-request-id"
NOTED = NOT_RETURNED | {REQUEST_ID}

MOMENT = re.compile(rb"[0-9]{1,15}(\.[0-9]{1,9})?")

LINE = b": ".join
"""One header as it is sent."""


def _random_names() -> Iterator[bytes]:
    """Many at a time: the kernel is asked for chance less often."""
    while True:
        names = os.urandom(16 * 256).hex().encode()
        for start in range(0, len(names), 32):
            yield names[start : start + 32]


new_id = partial(next, _random_names())
"""For a request whose client has given it none."""


def header(headers: Headers, name: bytes) -> bytes:
    """The first of that name; empty when there is none."""
    for key, value in headers:
        if key == name:
            return value
    return b""


def request_id(headers: Headers) -> bytes:
    """The client's own id, or a new one."""
    return header(headers, REQUEST_ID) or new_id()


def asked_at(headers: Headers, arrived: float) -> float:
    """When a request was asked that came here at ``arrived``: earlier if another gateway has passed it on.

    Whoever else says so makes nobody wait less but itself.
    """
    said = header(headers, ASKED)
    return min(arrived, float(said)) if MOMENT.fullmatch(said) else arrived


def request_head(
    method: str,
    target: bytes,
    headers: Headers,
    spec: EngineSpec,
    host: bytes,
    identity: bytes,
    length: int,
    asked: float | None = None,
) -> bytes:
    """The head of the request to an engine, as bytes. ``target``: raw path with its query.

    ``asked``: when, if it goes to another gateway.
    """
    lines = [b" ".join((method.encode(), target, b"HTTP/1.1")), b"host: " + host]
    for one in headers:
        if one[0] not in NOT_FORWARDED:
            lines.append(LINE(one))
        elif one[0] == b"connection" and one[1] != b"keep-alive":
            kept = _kept(headers, NOT_FORWARDED)
            lines[2:] = map(LINE, kept)
            break
    lines += (b"x-request-id: " + identity, b"content-length: %d" % length)
    if asked is not None:
        lines.append(b"%s: %.6f" % (ASKED, asked))
    if spec.api_key:
        lines.append(b"authorization: Bearer " + spec.api_key.encode())
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def response_headers(headers: Headers, identity: bytes, instance: bytes, failed: bool) -> list[tuple[bytes, bytes]]:
    """What the client gets: the engine's headers, and who answered."""
    kept, named = [], False
    for one in headers:
        if one[0] not in NOTED:
            kept.append(one)
        elif one[0] == REQUEST_ID:
            kept.append(one)
            named = True
        elif one[0] == b"connection" and one[1] != b"keep-alive":
            kept = _kept(headers, NOT_RETURNED)
            named = any(one[0] == REQUEST_ID for one in kept)
            break
    if not named:
        kept.append((REQUEST_ID, identity))
    kept.append((b"x-torpor-instance", instance))
    if failed:
        kept.append((b"x-torpor-error-source", b"engine"))
    return kept


def _kept(headers: Headers, dropped: Set[bytes]) -> list[tuple[bytes, bytes]]:
    """Those that are not ``dropped``, nor named by ``Connection`` as being for this hop only."""
    kept = [one for one in headers if one[0] not in dropped]
    if len(kept) != len(headers):
        listed = [value for name, value in headers if name == b"connection"]
        if listed and listed != [b"keep-alive"]:
            names = {word.strip().lower() for value in listed for word in value.split(b",")}
            kept = [one for one in kept if one[0] not in names]
    return kept
