"""The head of a request: how large it may be, and what in it could be understood in two ways."""

from __future__ import annotations

import re
from dataclasses import dataclass

from router.errors import HeadTooLarge, InvalidRequest, UrlTooLong
from router.proxy.headers import Headers
from router.server.limits import Limits

NOTED = frozenset({b"connection", b"content-encoding", b"expect", b"host", b"transfer-encoding", b"upgrade"})
"""Headers that decide how a request is read. Nearly always they are those of the request before."""

PLAIN = frozenset({b"connection", b"host"})
"""Those of a request with nothing unusual in how it is read."""

VERSIONS = ("1.0", "1.1")

HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")


@dataclass(frozen=True, slots=True)
class Reading:
    """How the rest is to be read. ``plain``: with nothing that another request with the same would be asked about."""

    plain: bool
    encoded: bool = False
    expects: bool = False
    offers: bool = False
    """To speak another protocol."""


def judge(noted: Headers, version: str) -> Reading:
    """``noted``: those of its headers that are in ``NOTED``. Raises ``InvalidRequest``."""
    hosts = [one for one in noted if one[0] == b"host"]
    if version not in VERSIONS:
        raise odd(f"This is HTTP/1.1, not {version}.")
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise odd("A request has exactly one Host.")
    if hosts and not HOST.fullmatch(hosts[0][1]):
        raise odd("The Host is not the name of one.")
    codings = [value.lower() for name, value in noted if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or version == "1.0"):
        raise odd("A body may be sent in chunks, and in no other transfer coding.")
    names = {name for name, _ in noted}
    return Reading(
        plain=bool(hosts) and names <= PLAIN,
        encoded=b"content-encoding" in names,
        expects=version == "1.1" and any(one[0] == b"expect" and one[1].lower() == b"100-continue" for one in noted),
        offers=b"upgrade" in names,
    )


def measure(url: bytes, headers: Headers, limits: Limits) -> None:
    """Raises ``UrlTooLong`` or ``HeadTooLarge``."""
    if len(url) > limits.url:
        raise UrlTooLong(f"The URL is longer than {limits.url} bytes.", "url_too_long", close=True)
    if len(headers) > limits.headers:
        raise HeadTooLarge(f"The request has more than {limits.headers} headers.", "head_too_large", close=True)
    measure_bytes(len(url) + sum(len(name) + len(value) + 4 for name, value in headers), limits)


def measure_bytes(size: int, limits: Limits) -> None:
    """Raises ``HeadTooLarge``."""
    if size > limits.head:
        raise HeadTooLarge(f"The headers are larger than {limits.head} bytes.", "head_too_large", close=True)


def without_offer(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """The same head, but not offering to speak another protocol."""
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            value = b",".join(word for word in value.split(b",") if word.strip().lower() != b"upgrade")
        if name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def odd(message: str) -> InvalidRequest:
    return InvalidRequest(message, "invalid_request", close=True)
