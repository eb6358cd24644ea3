"""Which headers travel between client and engine: all but those of one hop (RFC 9110, section 7.6.1) and keys."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

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
NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"authorization", b"x-api-key"}
"""A client's key is for the gateway, and stays here."""

REQUEST_ID = b"x-request-id"


def request_id(headers: Headers) -> bytes:
    """The client's own id, or a new one."""
    for name, value in headers:
        if name == REQUEST_ID and value:
            return value
    return uuid.uuid4().hex.encode()


def request_head(
    method: str, target: bytes, headers: Headers, spec: EngineSpec, host: bytes, identity: bytes, length: int
) -> bytes:
    """The head of the request to an engine, as bytes. ``target``: raw path with its query."""
    dropped = NOT_FORWARDED | _listed(headers)
    lines = [b"%s %s HTTP/1.1\r\nhost: %s\r\n" % (method.encode(), target, host)]
    lines += [b"%s: %s\r\n" % (name, value) for name, value in headers if name not in dropped and name != REQUEST_ID]
    lines.append(b"%s: %s\r\ncontent-length: %d\r\n" % (REQUEST_ID, identity, length))
    if spec.api_key:
        lines.append(b"authorization: Bearer %s\r\n" % spec.api_key.encode())
    lines.append(b"\r\n")
    return b"".join(lines)


def response_headers(headers: Headers, identity: bytes, instance: bytes, failed: bool) -> list[tuple[bytes, bytes]]:
    """What the client gets: the engine's headers, and who answered."""
    dropped = HOP_BY_HOP | _listed(headers)
    kept = [(name, value) for name, value in headers if name not in dropped]
    if all(name != REQUEST_ID for name, _ in kept):
        kept.append((REQUEST_ID, identity))
    kept.append((b"x-torpor-instance", instance))
    if failed:
        kept.append((b"x-torpor-error-source", b"engine"))
    return kept


def _listed(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The headers that ``Connection`` names as being for this hop only."""
    values = [value for name, value in headers if name == b"connection"]
    return frozenset(word.strip().lower() for value in values for word in value.split(b","))
