"""One request to an engine path: what came, and the door its answer goes out by."""

from __future__ import annotations

import re
import time
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from router.errors import InvalidRequest
from router.proxy.door import AsgiDoor, Door
from router.proxy.headers import Headers, asked_at, request_id

PATH_CHARACTERS = "/:@!$&'()*+,;=-._~"
UNSENDABLE = re.compile(rb"[\x00-\x20\x7f-\xff#]")
BROKEN = re.compile(rb"[\x00\r\n]")


class Call:
    """``target``: path and query as the client wrote them. ``arrived``: on the monotonic clock."""

    __slots__ = ("arrived", "body", "door", "headers", "id", "method", "path", "target")

    def __init__(
        self,
        method: str,
        path: str,
        target: bytes,
        headers: Headers,
        body: bytes,
        door: Door,
        arrived: float,
        identity: bytes,
    ) -> None:
        self.method = method
        self.path = path
        self.target = target
        self.headers = headers
        self.body = body
        self.door = door
        self.arrived = arrived
        self.id = identity

    @property
    def asked(self) -> float:
        """When its client asked: ``arrived``, or before that at a gateway that has passed it on."""
        return asked_at(self.headers, self.arrived)


def call_of(scope: Scope, receive: Receive, send: Send) -> Call:
    """A call that came through plain ASGI, its body still to be read. Raises ``InvalidRequest``.

    The target is made of the path that was routed, whatever it was written like. Other servers than ours may let
    through what would end a line here.
    """
    target = quote(scope["path"], safe=PATH_CHARACTERS).encode()
    query: bytes = scope["query_string"]
    if query:
        target += b"?" + query
    if UNSENDABLE.search(query) or any(BROKEN.search(name) or BROKEN.search(value) for name, value in scope["headers"]):
        raise InvalidRequest("The query or a header has characters that no request may have.", "invalid_request")
    door = AsgiDoor(receive, send)
    headers = scope["headers"]
    return Call(scope["method"], scope["path"], target, headers, b"", door, time.monotonic(), request_id(headers))
