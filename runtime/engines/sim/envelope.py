"""Around every request: the key, the headers all answers carry, and errors in the dialect's shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.engines.sim.errors import ApiError, anthropic_body, sglang_body, vllm_body
from runtime.engines.sim.form import JsonResponse
from runtime.engines.sim.options import SimOptions

ErrorHandler = Callable[[Request, Exception], Response]

_VLLM_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_SGLANG_OPEN = ("/health", "/metrics")


class CommonHeaders:
    """`vary: Origin` on everything, and the request id where it is asked for."""

    def __init__(self, app: ASGIApp, options: SimOptions) -> None:
        self._app = app
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        more = [(b"vary", b"Origin")]
        if self._options.enable_request_id_headers:
            request_id = Headers(scope=scope).get("x-request-id")
            if request_id:
                more.append((b"x-request-id", request_id.encode()))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class KeyGuard:
    """401 without a right key. Of vLLM's routes most are open; of SGLang's few."""

    def __init__(self, app: ASGIApp, options: SimOptions) -> None:
        self._app = app
        self._keys = options.api_keys
        self._sglang = options.dialect == "sglang"

    def _guarded(self, path: str) -> bool:
        if path.startswith("/sim/"):
            return False
        if self._sglang:
            return not path.startswith(_SGLANG_OPEN)
        return path.startswith(_VLLM_GUARDED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keys and scope["method"] != "OPTIONS" and self._guarded(scope["path"]):
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or key not in self._keys:
                await JsonResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def api_error_handler(options: SimOptions) -> ErrorHandler:
    def handle(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        body: dict[str, Any]
        if options.dialect == "sglang":
            body = sglang_body(error)
        elif request.url.path.startswith("/v1/messages"):
            body = anthropic_body(error)
        else:
            body = vllm_body(error)
        return JsonResponse(body, error.status)

    return handle


def http_error_handler(request: Request, error: Exception) -> Response:
    """FastAPI's shape for what no route answers."""
    assert isinstance(error, HTTPException)
    headers = {key.lower(): value for key, value in (error.headers or {}).items()}
    return JsonResponse({"detail": error.detail}, error.status_code, headers)
