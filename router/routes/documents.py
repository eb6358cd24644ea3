"""What the gateway says of itself to machines: its metrics and its OpenAPI document."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from router.envelope import ANTHROPIC
from router.metrics import CONTENT_TYPE, GatewayMetrics
from router.routes.endpoint import Endpoint
from router.version import torpor_version

PATH_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
REFS = "#/components/schemas/{model}"


def document_endpoints(
    metrics: GatewayMetrics, endpoints: Sequence[Endpoint], keyed: Callable[[], bool]
) -> list[Endpoint]:
    async def metrics_page(_: Request) -> Response:
        # Made on the loop: it reads what the loop changes. Turning it into text is fast enough for a scrape.
        return Response(metrics.page(), headers={"content-type": CONTENT_TYPE})

    async def openapi(_: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(openapi_document, all_of_them, keyed()))

    own = [
        Endpoint("GET", "/metrics", metrics_page, "Prometheus metrics of the gateway", "documents"),
        Endpoint("GET", "/openapi.json", openapi, "This document", "documents"),
    ]
    all_of_them = [*endpoints, *own]
    return own


def openapi_document(endpoints: Sequence[Endpoint], keyed: bool) -> dict[str, Any]:
    """OpenAPI 3.1 of the route table. ``keyed``: whether a key is asked for."""
    answers = {endpoint.answer for endpoint in endpoints if endpoint.answer is not None}
    ordered = sorted(answers, key=lambda model: model.__name__)
    bodies = {endpoint.body for endpoint in endpoints if endpoint.body is not None}
    _, schemas = models_json_schema(
        [
            *((model, "serialization") for model in ordered),
            *((model, "validation") for model in sorted(bodies, key=lambda model: model.__name__)),
        ],
        ref_template=REFS,
    )
    components: dict[str, Any] = {
        "schemas": {**schemas.get("$defs", {}), "Error": _ERROR, "AnthropicError": _ANTHROPIC_ERROR}
    }
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = PATH_PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, keyed)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Torpor", "version": torpor_version()},
        "paths": paths,
        "components": components,
    }


def _operation(endpoint: Endpoint, keyed: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "parameters": _parameters(endpoint),
        "responses": {
            "200": {"description": "OK", **_content(endpoint)},
            **{str(status): _error(endpoint, reason) for status, reason in endpoint.statuses.items()},
            "default": _error(endpoint, "Any error"),
        },
    }
    if endpoint.takes_body:
        body = {"type": "object", "required": ["model"], "properties": {"model": {"type": "string"}}}
        kinds = ("application/json", "multipart/form-data")
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": body} for kind in kinds}}
    if endpoint.body is not None:
        shape = {"$ref": REFS.format(model=endpoint.body.__name__)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": shape}}}
    if keyed and endpoint.path != "/health":
        operation["security"] = [{"key": []}]
    return operation


def _content(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.answer is None:
        return {}
    return {"content": {"application/json": {"schema": {"$ref": REFS.format(model=endpoint.answer.__name__)}}}}


def _error(endpoint: Endpoint, reason: str) -> dict[str, Any]:
    shape = "AnthropicError" if endpoint.path.startswith(ANTHROPIC) else "Error"
    return {"description": reason, "content": {"application/json": {"schema": {"$ref": REFS.format(model=shape)}}}}


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in PATH_PARAMETER.findall(endpoint.path)
    ]
    in_query = [
        {
            "name": query.name,
            "in": "query",
            "description": query.summary,
            "schema": {"type": query.kind, "default": query.default},
        }
        for query in endpoint.query
    ]
    return in_path + in_query


_ANTHROPIC_ERROR = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
