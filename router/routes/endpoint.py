"""A route as data: what it is called by, what it takes and gives. The OpenAPI document is made from these."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from controller.config.model import Config
from router.errors import InvalidRequest

Handler = Callable[[Request], Awaitable[Response]] | ASGIApp
InForce = Callable[[], Config]
"""The configuration as it is when somebody asks: a reload changes it."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query parameter. ``kind``: integer, number or boolean."""

    name: str
    kind: str
    default: Any
    summary: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``answer``: the body of a 200; None where an engine's own answer is passed on, or it is not JSON.

    ``takes_body``: one for an engine. ``body``: the shape of one that is ours.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    answer: type[BaseModel] | None = None
    query: tuple[Query, ...] = ()
    takes_body: bool = False
    body: type[BaseModel] | None = None
    statuses: dict[int, str] = field(default_factory=dict)

    def route(self) -> Route:
        route = Route(self.path, self.handler, methods=[self.method])
        route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + r"\Z")  # "$" lets a line end pass
        return route


def number(request: Request, query: Query, *, above: float, at_most: float) -> float:
    """A query parameter as a number. Raises ``InvalidRequest`` with the reason."""
    text = request.query_params.get(query.name)
    if text is None:
        return float(query.default)
    try:
        value = int(text) if query.kind == "integer" else float(text)
    except ValueError:
        wanted = "a whole number" if query.kind == "integer" else "a number"
        raise _invalid(query, f"must be {wanted}, not {text[:50]!r}") from None
    if not above < value <= at_most or math.isinf(value):
        bound = f" and at most {at_most:g}" if at_most != float("inf") else ""
        least = "at least 0" if above < 0 else f"more than {above:g}"
        raise _invalid(query, f"must be {least}{bound}, not {text[:50]}")
    return value


def flag(request: Request, query: Query) -> bool:
    """A query parameter that is true or false."""
    text = request.query_params.get(query.name)
    if text is None:
        return bool(query.default)
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no", ""):
        return False
    raise _invalid(query, f"must be true or false, not {text[:50]!r}")


def _invalid(query: Query, problem: str) -> InvalidRequest:
    return InvalidRequest(f"The parameter {query.name!r} {problem}.", "invalid_parameter", param=query.name)
