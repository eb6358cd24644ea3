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
from router.proxy.departure import Departure, departure
from router.proxy.headers import request_head, request_id, response_headers
from router.proxy.pool import Pool
from router.proxy.tokens import Tail
from router.proxy.upstream import Broken, ConnectFailed, Dropped, Silent, Upstream, UpstreamError
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
            request = Request(scope, send, route, peeked, body, self._traffic.models[route.model].begin(arrived))
            async with departure(receive) as leaving:
                await self._serve(request, leaving)
        except ClientGone:
            return

    async def _serve(self, request: Request, leaving: Departure) -> None:
        outcome, status = Outcome.FAILED, 500
        try:
            status, finished = await self._forward(request, leaving)
            outcome = Outcome.SUCCESSFUL if finished and status < 400 else Outcome.FAILED
        except asyncio.CancelledError:
            outcome, status = (Outcome.CANCELLED, 499) if leaving.gone else (Outcome.FAILED, 503)
            raise
        except Exception as error:
            status = envelope.gateway_error(error).status
            raise
        finally:
            prompt, completion = request.tail.usage()
            request.tracked.end(outcome, status, prompt, completion)

    async def _forward(self, request: Request, leaving: Departure) -> tuple[int, bool]:
        """Try replicas until one takes it. Returns the status sent, and whether the answer came to its end."""
        candidates = request.route.instances
        while True:
            instance = await self._acquire(request, candidates)
            pool = self._pools[instance.name]
            upstream: Upstream | None = None
            try:
                upstream = await self._exchange(request, instance, pool)
                return await relay(request, instance, upstream, leaving)
            except ConnectFailed as failed:
                # Nothing was sent. Let the fleet look at it, and go to a replica that is ready, if there is one.
                request.route.replicas.look_at(instance)
                candidates = tuple(one for one in candidates if one is not instance)
                if not request.route.replicas.ready(candidates):
                    raise upstream_error(failed) from failed
            except UpstreamError as failed:
                raise upstream_error(failed) from failed
            finally:
                if upstream is not None:
                    pool.release(upstream)
                instance.end()

    async def _acquire(self, request: Request, candidates: Sequence[Instance]) -> Instance:
        replicas = request.route.replicas
        instance = replicas.try_acquire(candidates, self._choose)
        if instance is not None:
            return instance
        tracked = request.tracked
        deadline = tracked.arrived + max(one.config.sleep.wake_timeout_seconds for one in candidates)
        began = tracked.wait_begins()
        try:
            return await replicas.acquire(candidates, self._choose, deadline)
        finally:
            tracked.wait_ends(began)

    async def _exchange(self, request: Request, instance: Instance, pool: Pool) -> Upstream:
        scope = request.scope
        name = request.route.rename[instance]
        body = request.body if name is None else bodies.rename(request.body, request.peeked, name)
        head = request_head(
            scope["method"], target(scope), scope["headers"], instance.config.spec, pool.host, request.id, len(body)
        )
        return await pool.exchange(head, body)


class Request:
    """What is known of one request on its way."""

    __slots__ = ("body", "id", "peeked", "route", "scope", "send", "tail", "tracked")

    def __init__(self, scope: Scope, send: Send, route: Route, peeked: Peek, body: bytes, tracked: Tracked) -> None:
        self.scope = scope
        self.send = send
        self.route = route
        self.peeked = peeked
        self.body = body
        self.tracked = tracked
        self.id = request_id(scope["headers"])
        self.tail = Tail()


async def relay(request: Request, instance: Instance, upstream: Upstream, leaving: Departure) -> tuple[int, bool]:
    """Pass the answer on as it comes. Returns its status, and whether it came to its end.

    One that breaks off is not ended cleanly: the client must be able to tell.
    """
    send, tail, status = request.send, request.tail, upstream.status
    headers = response_headers(upstream.headers, request.id, instance.name.encode(), status >= 400)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    try:
        chunk = await upstream.read()
        if chunk and request.peeked.stream:
            request.tracked.first_token()
        while chunk:
            tail.add(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            chunk = await upstream.read()
    except UpstreamError as failed:
        log.warning("answer of %s broke off: %s", instance.name, failed)
        if (b"content-type", b"text/event-stream") in [(name, value[:17]) for name, value in upstream.headers]:
            last = envelope.event(upstream_error(failed), request.scope["path"])
            await send({"type": "http.response.body", "body": last, "more_body": True})
        leaving.ignore()
        return status, False
    leaving.ignore()
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    return status, True


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
    assert isinstance(error, Broken)
    return BadUpstream(f"The answer broke off: {error}.", "engine_disconnected")
