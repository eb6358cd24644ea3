"""``create_app(config)``: the one place where the gateway's objects are made and joined."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from controller.config.model import Config
from router import envelope
from router.auth.guard import Key, KeyGuard
from router.errors import InvalidRequest, MethodNotAllowed, NotFound, stopping
from router.lifespan import Live, open_gateway
from router.metrics import GatewayMetrics
from router.proxy.pipeline import Pipeline
from router.proxy.responses import ResponsesPipeline
from router.reload import Reload
from router.residency_metrics import ResidencyMetrics
from router.routes.adapters import adapter_endpoints
from router.routes.admin import admin_endpoints
from router.routes.documents import document_endpoints
from router.routes.endpoint import Endpoint
from router.routes.engine_metrics import engine_metrics_endpoints
from router.routes.engine_paths import engine_endpoints, response_endpoints
from router.routes.events import event_endpoints
from router.routes.health import health_endpoints
from router.routes.models import model_endpoints
from router.routes.processes import process_endpoints
from router.routes.queue import queue_endpoints
from router.routes.residency import residency_endpoints
from router.routes.sleep import sleep_endpoints
from router.routes.traffic import traffic_endpoints
from router.server.short_way import ShortWay


class Gateway(Starlette):
    """A Starlette application that offers our own server a short way to its engine paths."""

    short_way: ShortWay | None = None
    stopping: Callable[[], None] | None = None
    """To be called when no new requests come, for those that would never end."""

    clients: Collection[object] = ()
    """The connections there are, where our own server says so."""

    live: Live | None = None
    reload: Reload | None = None

    async def leave(self, url: str) -> None:
        """Another gateway takes over at ``url``, when this returns."""
        if self.live is not None:
            await self.live.leave(url)
            await self.live.chronicle.finish()

    async def emptied(self) -> None:
        """Wait, once it has left, until nothing of it is in flight on an engine."""
        if self.live is not None:
            await self.live.farewells.all_ended()

    def is_alone(self) -> None:
        """No gateway before this one has anything in flight on an engine any more."""
        if self.live is not None:
            self.live.fleet.has_predecessor = False
            self.live.arbiter.look_soon()

    def reload_soon(self) -> None:
        """Apply the YAML as it is now; the log tells how it went."""
        if self.reload is not None:
            self.reload.apply_soon()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request that the server cancels, because it stops, is answered too."""
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await super().__call__(scope, receive, sent)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if not begun:
                await envelope.response(stopping(), scope)(scope, receive, send)


def short_way(table: Sequence[Endpoint], gateway: Live) -> ShortWay:
    """The engine paths of ``table`` that are always the same, behind the key if there is one."""
    pipelines = {one.path: one.handler for one in table if isinstance(one.handler, Pipeline) and "{" not in one.path}
    serve = {path: pipeline.serve for path, pipeline in pipelines.items()}
    return ShortWay(serve, gateway.buffered, gateway.key.refusal)


def create_app(config: Config, *, has_predecessor: bool = False) -> Gateway:
    """The gateway as an ASGI application. Its routes exist once its lifespan has begun.

    ``has_predecessor``: another gateway still has requests in flight, until this one is told that it is ``alone``.
    """
    key = Key(config.api_key)

    @asynccontextmanager
    async def lifespan(app: Gateway) -> AsyncIterator[None]:
        async with open_gateway(config, key, has_predecessor) as gateway:
            app.live, app.reload = gateway, Reload(gateway)
            table = endpoints(gateway, app.reload, lambda: len(app.clients))
            app.router.routes.extend(endpoint.route() for endpoint in table)
            app.short_way = short_way(table, gateway)
            app.stopping = gateway.stopping.set
            try:
                yield
            finally:
                await app.reload.aclose()

    app = Gateway(
        lifespan=lifespan,
        middleware=[Middleware(KeyGuard, key=key)],
        exception_handlers={
            HTTPException: _not_routed,
            **dict.fromkeys(envelope.EXPECTED, _render),
            Exception: _render,
        },
    )
    app.router.redirect_slashes = False  # a redirect would name whatever host the client's header says
    return app


def endpoints(gateway: Live, reload: Reload, clients: Callable[[], int]) -> list[Endpoint]:
    """The whole route table. More particular paths come before those that take any name. ``clients``: their number."""
    fleet, traffic = gateway.fleet, gateway.traffic

    def in_force() -> Config:
        return gateway.config

    pipeline = Pipeline(fleet.routes, gateway.pools, gateway.serving, gateway.buffered, gateway.outlooks)
    responses = ResponsesPipeline(
        fleet, gateway.pools, gateway.serving, gateway.buffered, gateway.outlooks, gateway.makers
    )
    table = [
        *engine_endpoints(pipeline),
        *response_endpoints(responses),
        *health_endpoints(in_force, fleet),
        *traffic_endpoints(fleet, traffic),
        *sleep_endpoints(in_force, fleet, traffic, gateway.sleep, gateway.outlooks),
        *queue_endpoints(gateway.queues),
        *engine_metrics_endpoints(gateway.engine_metrics),
        *adapter_endpoints(gateway.adapters),
        *event_endpoints(gateway.chronicle, gateway.stopping),
        *residency_endpoints(gateway.arbiter, fleet),
        *process_endpoints(fleet, gateway.supervisor, gateway.key),
        *model_endpoints(fleet),
        *admin_endpoints(reload, gateway.key),
    ]
    more = ResidencyMetrics(fleet, gateway.arbiter, traffic)
    metrics = GatewayMetrics(fleet, traffic, gateway.queues, gateway.buffered, clients, more)
    return [*table, *document_endpoints(metrics, table, lambda: in_force().api_key is not None)]


async def _render(request: Request, error: Exception) -> Response:
    return envelope.response(error, request.scope)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method, request.scope["path"]
    if error.status_code == 404:
        return await _render(request, NotFound(f"There is no {method} {path[:200]!r} here.", "unknown_path"))
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        refused = MethodNotAllowed(f"{path[:200]!r} takes {allowed}, not {method}.", "method_not_allowed")
        response = await _render(request, refused)
        response.headers["allow"] = allowed
        return response
    return await _render(request, InvalidRequest(str(error.detail), "invalid_request"))
