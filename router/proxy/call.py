"""One request to an engine path: what came, and the door its answer goes out by."""

from __future__ import annotations

import time

from starlette.types import Receive, Scope, Send

from router.proxy.door import AsgiDoor, Door
from router.proxy.headers import Headers, request_id


class Call:
    """``target``: path and query as the client wrote them. ``arrived``: on the monotonic clock."""

    __slots__ = ("arrived", "body", "door", "headers", "id", "method", "path", "target")

    def __init__(
        self, method: str, path: str, target: bytes, headers: Headers, body: bytes, door: Door, arrived: float
    ) -> None:
        self.method = method
        self.path = path
        self.target = target
        self.headers = headers
        self.body = body
        self.door = door
        self.arrived = arrived
        self.id = request_id(headers)


def call_of(scope: Scope, receive: Receive, send: Send) -> Call:
    """A call that came through plain ASGI, its body still to be read."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    target = raw + b"?" + query if query else raw
    door = AsgiDoor(receive, send)
    return Call(scope["method"], scope["path"], target, scope["headers"], b"", door, time.monotonic())
