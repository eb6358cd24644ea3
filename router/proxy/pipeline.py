"""One request's way to an engine and its answer's way back: read, resolve, wake, pick, forward, record."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from starlette.types import Receive, Scope, Send

from controller.fleet.instance import Instance
from controller.fleet.routes import Choose, Route
from router import envelope
from router.errors import BadUpstream, GatewayError, ModelNotFound, UpstreamTimeout
from router.proxy import body as bodies
from router.proxy.body import ClientGone, Peek
from router.proxy.departure import Departure
from router.proxy.door import Door, door_of
from router.proxy.exchange import Exchange
from router.proxy.headers import request_head, request_id
from router.proxy.pool import Pool
from router.proxy.upstream import ConnectFailed, Dropped, Silent, Upstream, UpstreamError
from router.traffic.monitor import Outcome, Tracked, TrafficMonitor

log = logging.getLogger(__name__)


class Pipeline:
    """An ASGI application for the paths that engines serve. ``max_body``: bytes."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        pools: Mapping[str, Pool],
        traffic: TrafficMonitor,
        choose: Choose,
        max_body: int,
    ) -> None:
        self._routes = routes
        self._pools = pools
        self._traffic = traffic
        self._choose = choose
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises what ``envelope`` can render as long as nothing has been sent."""
        arrived = time.monotonic()
        try:
            body = await bodies.read(scope, receive, self._max_body)
            peeked = bodies.peek(scope, body)
            route = self._routes.get(peeked.model)
            if route is None:
                raise ModelNotFound(peeked.model)
            door = door_of(scope, receive, send)
            tracked = self._traffic.models[route.model].begin(arrived)
            with Departure(door) as leaving:
                await self._serve(Request(scope, door, route, peeked, body, tracked), leaving)
        except ClientGone:
            return

    async def _serve(self, request: Request, leaving: Departure) -> None:
        outcome, status, tokens = Outcome.FAILED, 500, (0, 0)
        try:
            exchange, whole = await self._forward(request)
            status, tokens = exchange.status, exchange.tail.usage()
            outcome = Outcome.SUCCESSFUL if whole and status < 400 else Outcome.FAILED
        except asyncio.CancelledError:
            outcome, status = (Outcome.CANCELLED, 499) if leaving.gone else (Outcome.FAILED, 503)
            raise
        except Exception as error:
            status = envelope.gateway_error(error).status
            raise
        finally:
            request.tracked.end(outcome, status, *tokens)

    async def _forward(self, request: Request) -> tuple[Exchange, bool]:
        """Try replicas until one answers. Returns what was exchanged, and whether the answer came to its end."""
        candidates: Sequence[Instance] = request.route.instances
        replicas = request.route.replicas
        while True:
            instance = replicas.try_acquire(candidates, self._choose)
            if instance is None:
                instance = await self._wait(request, candidates)
            exchange = Exchange(
                request.door, request.tracked, request.id, instance.config.name.encode(), request.peeked.stream
            )
            try:
                await self._exchange(request, instance, exchange)
                return exchange, True
            except UpstreamError as failed:
                if exchange.started:
                    log.warning("the answer of %s broke off: %s", instance.name, failed)
                    await break_off(request, exchange, failed)
                    return exchange, False
                if isinstance(failed, ConnectFailed):
                    # Nothing was sent. Have it looked at, and go to a replica that is ready, if there is one.
                    replicas.look_at(instance)
                    candidates = tuple(one for one in candidates if one is not instance)
                    if replicas.ready(candidates):
                        continue
                raise upstream_error(failed) from failed
            finally:
                instance.end()

    async def _wait(self, request: Request, candidates: Sequence[Instance]) -> Instance:
        tracked = request.tracked
        deadline = tracked.arrived + max(one.config.sleep.wake_timeout_seconds for one in candidates)
        began = tracked.wait_begins()
        try:
            return await request.route.replicas.acquire(candidates, self._choose, deadline)
        finally:
            tracked.wait_ends(began)

    async def _exchange(self, request: Request, instance: Instance, exchange: Exchange) -> None:
        """Send the request on a kept connection if there is one, and see the answer through."""
        pool = self._pools[instance.name]
        scope = request.scope
        name = request.route.rename[instance]
        body = request.body if name is None else bodies.rename(request.body, request.peeked, name)
        head = request_head(
            scope["method"], target(scope), scope["headers"], instance.config.spec, pool.host, request.id, len(body)
        )
        kept = pool.kept()
        try:
            await self._send(request, pool, kept or await pool.connect(), head, body, exchange)
            return
        except Dropped as dropped:
            if kept is None:
                raise
            lost = dropped
        # It was closed just as we wrote, and most likely the engine has not seen the request. Once more, here only:
        # should it have died of the request, nobody else is to.
        exchange.done = asyncio.get_running_loop().create_future()
        try:
            upstream = await pool.connect()
        except ConnectFailed:
            request.route.replicas.look_at(instance)
            raise lost from None
        await self._send(request, pool, upstream, head, body, exchange)

    async def _send(
        self, request: Request, pool: Pool, upstream: Upstream, head: bytes, body: bytes, exchange: Exchange
    ) -> None:
        try:
            upstream.begin(head, body, exchange)
            await request.door.finish(exchange.done)
        finally:
            pool.release(upstream)


class Request:
    """What is known of one request on its way."""

    __slots__ = ("body", "door", "id", "peeked", "route", "scope", "tracked")

    def __init__(self, scope: Scope, door: Door, route: Route, peeked: Peek, body: bytes, tracked: Tracked) -> None:
        self.scope = scope
        self.door = door
        self.route = route
        self.peeked = peeked
        self.body = body
        self.tracked = tracked
        self.id = request_id(scope["headers"])


async def break_off(request: Request, exchange: Exchange, failed: UpstreamError) -> None:
    """End an answer that has begun. A stream is told why; the client must be able to tell that it is not whole."""
    last = b""
    if exchange.is_event_stream:
        # The blank line first: it may have broken off in the middle of an event.
        last = b"\n\n" + envelope.event(upstream_error(failed), request.scope["path"])
    await request.door.break_off(last)


def target(scope: Scope) -> bytes:
    """The path and query as the client wrote them."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return raw + b"?" + query if query else raw


def upstream_error(error: UpstreamError) -> GatewayError:
    if isinstance(error, Silent):
        return UpstreamTimeout(f"The engine did not answer in time: {error}.", "engine_timeout")
    if isinstance(error, ConnectFailed):
        return BadUpstream(f"The engine cannot be reached: {error}.", "engine_unreachable")
    if isinstance(error, Dropped):
        return BadUpstream(f"The engine gave no answer: {error}.", "engine_disconnected")
    return BadUpstream(f"The engine's answer broke off: {error}.", "engine_disconnected")
