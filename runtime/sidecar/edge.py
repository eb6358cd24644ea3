"""Where requests come in: whatever goes wrong with one becomes an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from runtime.sidecar.answer import Json
from runtime.sidecar.problems import Failure, failure_of, unexpected

Handler = Callable[[Request], Awaitable[Response]]
Shape = Callable[[Failure], Mapping[str, Any]]
"""How an error's body looks to those who made these paths."""


def told(handler: Handler, shape: Shape) -> Handler:
    """The handler, with its errors as answers: each has its status, and a bug its traceback in the log."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - the edge
            failure = failure_of(error)
            unexpected(error)
            return Json(shape(failure), failure.status)

    return handle
