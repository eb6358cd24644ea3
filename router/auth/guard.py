"""One key for all clients, asked for on every path but ``/health``."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from router import envelope
from router.errors import NotAuthenticated
from router.proxy.body import header

OPEN_PATHS = frozenset({"/health"})


class KeyGuard:
    """Refuses a request without the key. Decides by ``scope["path"]``, never by what a Host header makes of it."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" and scope["path"] not in OPEN_PATHS else None
        await (self._app if refusal is None else envelope.response(refusal, scope))(scope, receive, send)

    def _refusal(self, scope: Scope) -> NotAuthenticated | None:
        given = presented_key(scope)
        if not given:
            return NotAuthenticated("This gateway wants a key: Authorization: Bearer …", "missing_api_key")
        if not hmac.compare_digest(given, self._key):
            return NotAuthenticated("The key is not right.", "invalid_api_key")
        return None


def presented_key(scope: Scope) -> bytes:
    """The Bearer key, or the one Anthropic's clients send."""
    scheme, _, key = header(scope, b"authorization").partition(b" ")
    if scheme.lower() == b"bearer":
        return key.strip()
    return header(scope, b"x-api-key")
