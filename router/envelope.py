"""The one place that turns any error into a response body: OpenAI's shape, or Anthropic's where its clients ask."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Scope

from controller.adapters import errors as adapters
from controller.adapters.credentials import CredentialsUnusable
from controller.fleet import errors as fleet
from router.errors import (
    BadUpstream,
    Conflict,
    GatewayError,
    Internal,
    InvalidRequest,
    NotFound,
    Unavailable,
    UpstreamTimeout,
)
from router.proxy.encoding import ACCEPTED
from router.proxy.headers import REQUEST_ID, request_id
from runtime.engines import base as engines
from state.database import StateError

ERROR_SOURCE = b"x-torpor-error-source"

ANTHROPIC = "/v1/messages"
"""Paths below it answer in Anthropic's shape."""

_FLEET: Mapping[type[fleet.FleetError], tuple[type[GatewayError], str]] = {
    fleet.Unreachable: (BadUpstream, "engine_unreachable"),
    fleet.NotLoaded: (Unavailable, "adapter_not_loaded"),
    fleet.KeptAsleep: (Unavailable, "model_asleep"),
    fleet.WakeFailed: (Unavailable, "wake_failed"),
    fleet.StoppedByHand: (Unavailable, "model_stopped"),
    fleet.GivenUp: (Unavailable, "model_failed"),
    fleet.NoRoom: (Unavailable, "insufficient_gpu_memory"),
    fleet.DeadlinePassed: (Unavailable, "wake_timeout"),
    fleet.Unavailable: (Unavailable, "min_sleep_duration"),
    fleet.TooEarly: (Conflict, "min_sleep_duration"),
    fleet.Busy: (Conflict, "still_busy"),
    fleet.NoHostMemory: (Conflict, "insufficient_host_memory"),
    fleet.CalledOff: (Conflict, "called_off"),
    fleet.NotPossible: (Conflict, "not_possible"),
    fleet.EngineFailed: (BadUpstream, "engine_failed"),
}

_ENGINE: Mapping[type[engines.EngineError], tuple[type[GatewayError], str]] = {
    engines.EngineUnreachable: (BadUpstream, "engine_unreachable"),
    engines.EngineTimeout: (UpstreamTimeout, "engine_timeout"),
    engines.EngineRefused: (BadUpstream, "engine_failed"),
    engines.AlreadyLoaded: (Conflict, "adapter_exists"),
    engines.NotLoaded: (Conflict, "adapter_not_loaded"),
    engines.NotSupported: (Conflict, "not_possible"),
}

_ADAPTERS: Mapping[type[adapters.AdapterError], tuple[type[GatewayError], str]] = {
    adapters.UnknownAdapter: (NotFound, "adapter_not_found"),
    adapters.UnknownBase: (InvalidRequest, "unknown_base_model"),
    adapters.NameTaken: (Conflict, "name_taken"),
    adapters.Declared: (Conflict, "declared_in_yaml"),
    adapters.BeingDeleted: (Conflict, "being_deleted"),
}

EXPECTED = (
    GatewayError,
    fleet.FleetError,
    engines.EngineError,
    adapters.AdapterError,
    CredentialsUnusable,
    StateError,
)
"""Errors that say what is wrong; any other is a bug."""


def gateway_error(error: Exception) -> GatewayError:
    """What an error of a lower layer means to a client. An unexpected one says nothing of itself."""
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, fleet.FleetError):
        kind, code = _FLEET[type(error)]
        return kind(str(error), code, retry_after=error.retry_after)
    if isinstance(error, engines.EngineError):
        kind, code = _ENGINE[type(error)]
        return kind(str(error), code)
    if isinstance(error, adapters.AdapterError):
        kind, code = _ADAPTERS[type(error)]
        return kind(str(error), code)
    if isinstance(error, CredentialsUnusable):
        return Unavailable(str(error), "credentials_unusable")
    if isinstance(error, StateError):
        return Unavailable("The gateway cannot use its database; its log says why.", "state_unavailable")
    return Internal("The gateway has a bug; its log has the traceback.", "internal_error")


def is_expected(error: Exception) -> bool:
    return isinstance(error, EXPECTED)


def response(error: Exception, scope: Scope) -> Response:
    """The whole answer to a request that cannot be served."""
    found = gateway_error(error)
    own, text = answer(found, scope["path"], request_id(scope["headers"]))
    whole = Response(text, found.status)
    whole.raw_headers = own
    return whole


def answer(error: GatewayError, path: str, identity: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the answer to a request that cannot be served."""
    text = body(error, path)
    own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text)), (REQUEST_ID, identity)]
    return [*own, *headers(error)], text


def body(error: GatewayError, path: str) -> bytes:
    """The error as JSON, in the shape that clients of ``path`` know."""
    return _json(content(error, path))


def content(error: GatewayError, path: str) -> dict[str, object]:
    if path.startswith(ANTHROPIC):
        return {"type": "error", "error": {"type": _anthropic_type(error), "message": error.message}}
    return {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code},
    }


def headers(error: GatewayError) -> list[tuple[bytes, bytes]]:
    found = [(ERROR_SOURCE, b"gateway")]
    if error.retry_after is not None:
        found.append((b"retry-after", str(max(1, math.ceil(error.retry_after))).encode()))
    if error.status == 401:
        found.append((b"www-authenticate", b"Bearer"))
    if error.status == 415:
        found.append((b"accept-encoding", ", ".join(ACCEPTED).encode()))
    if error.close:
        found.append((b"connection", b"close"))
    return found


def event(error: GatewayError, path: str) -> bytes:
    """The error as the last event of a stream that has begun."""
    return event_of(body(error, path), path)


def event_of(body: bytes, path: str) -> bytes:
    """An error's body as the last event of a stream: an engine's own, or one of ours."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        text = body[:1000].decode("utf-8", "replace")
        return event(BadUpstream(f"The engine answered: {text}", "engine_failed"), path)
    inner = found.get("error")
    told = inner if isinstance(inner, dict) else found
    if path.startswith("/v1/responses"):
        found = {"type": "error", **{key: told.get(key) for key in ("code", "message", "param")}}
    elif path.startswith(ANTHROPIC) and found.get("type") != "error":
        found = {"type": "error", "error": {"type": "api_error", "message": str(told.get("message", found))}}
    elif "error" not in found:
        found = {"error": found}
    name = b"event: error\n" if path.startswith((ANTHROPIC, "/v1/responses")) else b""
    return name + b"data: " + _json(found) + b"\n\n"


def sign_of_life(path: str, text: str) -> bytes:
    """What a stream may say before its content, which clients of ``path`` pass over."""
    if path.startswith(ANTHROPIC):
        return b'event: ping\ndata: {"type": "ping"}\n\n'
    return b": " + text.replace("\n", " ").replace("\r", " ").encode() + b"\n\n"


def _json(content: object) -> bytes:
    """Half a character, which JSON may hold as an escape, stays one: it has no bytes of its own."""
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _anthropic_type(error: GatewayError) -> str:
    known = {
        400: "invalid_request_error",
        401: "authentication_error",
        404: "not_found_error",
        408: "timeout_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
    return known.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
