"""What the gateway itself refuses or cannot do, as an OpenAI client understands it.

GatewayError
├── InvalidRequest     400
├── NotAuthenticated   401
├── Forbidden          403
├── NotFound           404
│   └── ModelNotFound
├── MethodNotAllowed   405
├── RequestTimeout     408   the client did not send what it had begun
├── Conflict           409
├── TooLarge           413
├── UrlTooLong         414
├── UnknownEncoding    415   of the body
├── Unprocessable      422
├── TooManyRequests    429
├── HeadTooLarge       431
├── Internal           500
├── BadUpstream        502   the engine could not be reached, or did not speak HTTP
├── Unavailable        503
└── UpstreamTimeout    504
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """``code`` is for programs and stable. ``retry_after``: seconds. ``close``: the connection cannot go on."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        code: str | None = None,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.close = close


class InvalidRequest(GatewayError):
    status = 400
    type = "invalid_request_error"


class NotAuthenticated(GatewayError):
    status = 401
    type = "authentication_error"


class Forbidden(GatewayError):
    status = 403
    type = "permission_error"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"


class ModelNotFound(NotFound):
    def __init__(self, model: str) -> None:
        shown = model if len(model) <= 200 else model[:200] + "…"
        super().__init__(f"The model {shown!r} does not exist. GET /v1/models lists those that do.", "model_not_found")
        self.param = "model"


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"


class RequestTimeout(GatewayError):
    status = 408
    type = "invalid_request_error"


class Conflict(GatewayError):
    status = 409
    type = "conflict_error"


class TooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"


class UrlTooLong(GatewayError):
    status = 414
    type = "invalid_request_error"


class UnknownEncoding(GatewayError):
    status = 415
    type = "invalid_request_error"


class Unprocessable(GatewayError):
    status = 422
    type = "invalid_request_error"


class TooManyRequests(GatewayError):
    status = 429
    type = "rate_limit_error"


class HeadTooLarge(GatewayError):
    status = 431
    type = "invalid_request_error"


class Internal(GatewayError):
    pass


class BadUpstream(GatewayError):
    status = 502
    type = "upstream_error"


class Unavailable(GatewayError):
    status = 503
    type = "service_unavailable_error"


def stopping() -> Unavailable:
    return Unavailable("The gateway is being stopped.", "gateway_stopping", close=True)


class UpstreamTimeout(GatewayError):
    status = 504
    type = "upstream_error"
