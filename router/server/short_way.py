"""What an application offers our server: engine paths that need no ASGI task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from router.errors import GatewayError
from router.proxy.buffered import Buffered
from router.proxy.call import Call
from router.proxy.headers import Headers

Serve = Callable[[Call], "asyncio.Task[None] | None"]


@dataclass(frozen=True, slots=True)
class ShortWay:
    """What an application has under ``short_way``. ``serve``: by raw path.

    ``guard`` says why a request with such headers is refused, if it is.
    """

    serve: Mapping[bytes, Serve]
    buffered: Buffered
    guard: Callable[[Headers], GatewayError | None]
