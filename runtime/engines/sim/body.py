"""Reading a JSON body, with the errors of the real engines."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from runtime.engines.sim.errors import ApiError, invalid


async def read_json(request: Request, *required: str, strict_type: bool = True) -> dict[str, Any]:
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if strict_type and not (kind == "application/json" or kind.endswith("+json")):
        message = "Unsupported Media Type: Only 'application/json' is allowed"
        raise ApiError(400, message, "Bad Request")
    raw = await request.body()
    if not raw:
        raise invalid("missing", "body", "Field required")
    try:
        body = json.loads(raw)
    except json.JSONDecodeError as error:
        raise invalid("json_invalid", f"body.{error.pos}", "JSON decode error") from error
    except ValueError as error:
        raise invalid("json_invalid", "body.0", "JSON decode error") from error
    if not isinstance(body, dict):
        raise invalid("model_attributes_type", "body", "Input should be a valid dictionary")
    for field in required:
        if field not in body:
            raise invalid("missing", f"body.{field}", "Field required")
    return body


async def read_optional_json(request: Request) -> dict[str, Any]:
    """A JSON object, or nothing."""
    raw = await request.body()
    try:
        body = json.loads(raw) if raw else {}
    except ValueError as error:
        raise invalid("json_invalid", "body.0", "JSON decode error") from error
    if not isinstance(body, dict):
        raise invalid("model_attributes_type", "body", "Input should be a valid dictionary")
    return body


def integer(body: dict[str, Any], *names: str) -> int | None:
    """The first of these fields that is given."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid("int_parsing", f"body.{name}", "Input should be a valid integer")
        return value
    return None
