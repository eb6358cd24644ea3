"""Reading a request's JSON: an object of known size, and its fields by type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request

from runtime.sidecar.problems import BadRequest

LARGEST_BODY = 1 << 20  # bytes


async def read_object(request: Request, *, optional: bool = False) -> Mapping[str, Any]:
    """Raises ``BadRequest``. ``optional``: no body is an empty object."""
    raw = bytearray()
    try:
        async for part in request.stream():
            raw += part
            if len(raw) > LARGEST_BODY:
                raise BadRequest(f"the body has more than {LARGEST_BODY} bytes")
    except ClientDisconnect:
        raise BadRequest("the client left before its body had come") from None
    if optional and not raw.strip():
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object")
    return body


def text(body: Mapping[str, Any], name: str) -> str | None:
    """A field that is text and not empty; None without it."""
    value = body.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be text")
    return value


def needed(body: Mapping[str, Any], name: str) -> str:
    value = text(body, name)
    if value is None:
        raise BadRequest(f"Missing required parameter: {name}")
    return value


def flag(body: Mapping[str, Any], name: str, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false")
    return value


def whole(body: Mapping[str, Any], name: str, default: int, most: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise BadRequest(f"{name} must be a whole number from 1 to {most}")
    return value


def mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object, or the JSON text of one, which is all that Kthena itself took."""
    value = body.get(name)
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRequest(f"{name} must be an object") from None
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object")
    return value


def only(body: Mapping[str, Any], *known: str) -> None:
    """No field but these."""
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise BadRequest(f"unknown fields: {', '.join(unknown)[:200]}; there are {', '.join(known)}")
