"""Which headers travel between client and engine: all but those of one hop (RFC 9110, section 7.6.1) and keys."""

from __future__ import annotations

import random
from collections.abc import Sequence, Set

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
NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"authorization", b"x-api-key", b"x-request-id"}
"""A client's key is for the gateway, and stays here."""

NOT_RETURNED = HOP_BY_HOP | {b"x-torpor-instance", b"x-torpor-error-source"}
"""Another Torpor's marks are about instances that this one's clients do not know."""

REQUEST_ID = b"x-request-id"

_identities = random.Random()
"""They are names, not secrets; asking the kernel for each costs as much as parsing a request."""


def request_id(headers: Headers) -> bytes:
    """The client's own id, or a new one."""
    for name, value in headers:
        if name == REQUEST_ID and value:
            return value
    return b"%032x" % _identities.getrandbits(128)


def request_head(
    method: str, target: bytes, headers: Headers, spec: EngineSpec, host: bytes, identity: bytes, length: int
) -> bytes:
    """The head of the request to an engine, as bytes. ``target``: raw path with its query."""
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method.encode(), target, host)]
    lines += [b"%b: %b\r\n" % one for one in _kept(headers, NOT_FORWARDED)]
    key = b"authorization: Bearer %b\r\n" % spec.api_key.encode() if spec.api_key else b""
    lines.append(b"x-request-id: %b\r\ncontent-length: %d\r\n%b\r\n" % (identity, length, key))
    return b"".join(lines)


def response_headers(headers: Headers, identity: bytes, instance: bytes, failed: bool) -> list[tuple[bytes, bytes]]:
    """What the client gets: the engine's headers, and who answered."""
    kept = _kept(headers, NOT_RETURNED)
    for name, _ in kept:
        if name == REQUEST_ID:
            break
    else:
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
