"""One key for all clients, asked for on every path but ``/health``."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from router import envelope
from router.errors import NotAuthenticated
from router.proxy.headers import Headers, header

OPEN_PATHS = frozenset({"/health"})


class Key:
    """The one in force; None lets everybody in."""

    def __init__(self, key: str | None) -> None:
        self.become(key)

    def become(self, key: str | None) -> None:
        self._key = key.encode() if key is not None else None

    @property
    def is_open(self) -> bool:
        return self._key is None

    def refusal(self, headers: Headers) -> NotAuthenticated | None:
        """What is wrong with the key that came with a request; None when it is right."""
        if self._key is None:
            return None
        given = presented_key(headers)
        if not given:
            return NotAuthenticated("This gateway wants a key: Authorization: Bearer …", "missing_api_key")
        if not hmac.compare_digest(given, self._key):
            return NotAuthenticated("The key is not right.", "invalid_api_key")
        return None


class KeyGuard:
    """Refuses a request without the key. Decides by ``scope["path"]``, never by what a Host header makes of it."""

    def __init__(self, app: ASGIApp, key: Key) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guarded = scope["type"] == "http" and scope["path"] not in OPEN_PATHS
        refusal = self._key.refusal(scope["headers"]) if guarded else None
        await (self._app if refusal is None else envelope.response(refusal, scope))(scope, receive, send)


def presented_key(headers: Headers) -> bytes:
    """The Bearer key, or the one Anthropic's clients send."""
    scheme, _, key = header(headers, b"authorization").partition(b" ")
    if scheme.lower() == b"bearer":
        return key.strip()
    return header(headers, b"x-api-key")
