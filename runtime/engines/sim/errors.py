"""Errors the simulated engine answers with.

ApiError             status, message, type, param: rendered in the dialect's shape
ClientLeft           the other side closed the connection; nothing to answer
EngineDown           the engine is ending; what runs gets an error
"""

from __future__ import annotations

from typing import Any

ENGINE_DOWN = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class ApiError(Exception):
    def __init__(self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param


class ClientLeft(Exception):
    pass


class EngineDown(ApiError):
    def __init__(self) -> None:
        super().__init__(500, ENGINE_DOWN, "InternalServerError")


def overloaded() -> ApiError:
    message = (
        "The engine is currently busy and cannot accept new requests. "
        "Please try again later or on a different instance."
    )
    return ApiError(503, message, "Service Unavailable")


def invalid(kind: str, loc: str, message: str) -> ApiError:
    """A body that failed validation, before the engine saw it."""
    text = f"1 validation error:\n  {{'type': '{kind}', 'loc': '{loc}', 'msg': '{message}'}}"
    return ApiError(400, text, "Bad Request", loc)


def vllm_body(error: ApiError) -> dict[str, Any]:
    return {"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.status}}


def anthropic_body(error: ApiError) -> dict[str, Any]:
    return {"type": "error", "error": {"type": error.kind, "message": error.message}}


def sglang_body(error: ApiError) -> dict[str, Any]:
    kind = error.kind.replace("Bad Request", "BadRequestError")
    return {"object": "error", "message": error.message, "type": kind, "param": error.param, "code": error.status}
