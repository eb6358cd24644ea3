"""What an application offers our server: engine paths that need no ASGI task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from router.errors import GatewayError
from router.proxy.buffered import Buffered
from router.proxy.call import Call
from router.proxy.headers import Headers

Serve = Callable[[Call], "asyncio.Task[None] | None"]


class ShortWay:
    """What an application has under ``short_way``. ``serve``: by path, of plain letters only.

    ``guard`` says why a request with such headers is refused, if it is.
    """

    def __init__(
        self, serve: Mapping[str, Serve], buffered: Buffered, guard: Callable[[Headers], GatewayError | None]
    ) -> None:
        self.buffered = buffered
        self.guard = guard
        self._ways = {path.encode(): (path, serve) for path, serve in serve.items()}

    def find(self, url: bytes) -> tuple[str, Serve] | None:
        """The path of ``url``, and who serves it."""
        found = self._ways.get(url)
        if found is None:
            path, _, query = url.partition(b"?")
            found = self._ways.get(path) if b"#" not in query else None
        return found
