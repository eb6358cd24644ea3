"""One request's way to an engine and its answer's way back: resolve, wake, pick, forward, record.

Most requests find their model ready and a connection kept: these go without a task of their own, from the client's
transport to the engine's and back. Whatever must wait for something goes on in a task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from starlette.types import Receive, Scope, Send

from controller.fleet.errors import DeadlinePassed
from controller.fleet.instance import Instance
from controller.fleet.routes import Choose, Route
from controller.fleet.state import State
from router import envelope
from router.errors import GatewayError, ModelNotFound
from router.outlook import Outlooks
from router.proxy import body as bodies
from router.proxy.body import ClientGone, Peek
from router.proxy.buffered import Buffered
from router.proxy.call import Call, call_of
from router.proxy.departure import Departure
from router.proxy.flight import Flight, upstream_error
from router.proxy.keepalive import KeepAlive
from router.proxy.pool import Pool
from router.proxy.priority import priority_of
from router.proxy.queue import Queue
from router.proxy.refusal import Refused
from router.proxy.serving import Serving
from router.proxy.upstream import ConnectFailed, Dropped, Stopped, Upstream, UpstreamError
from router.traffic.monitor import Outcome, Tracked

log = logging.getLogger(__name__)


class Pipeline:
    """An ASGI application for the paths that engines serve."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        pools: Mapping[Instance, Pool],
        serving: Mapping[str, Serving],
        buffered: Buffered,
        outlooks: Outlooks,
    ) -> None:
        self.buffered = buffered
        self._outlooks = outlooks
        self._routes = routes
        self._pools = pools
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request through plain ASGI."""
        with self.buffered.share() as share:
            try:
                call = call_of(scope, receive, send)
                call.headers, call.body = await bodies.read(scope, receive, self.buffered.largest, share)
                flight = self._prepare(call)
            except ClientGone:
                return
            except GatewayError as refused:
                await envelope.response(refused, scope)(scope, receive, send)
                return
            await self._fly(flight)

    def serve(self, call: Call) -> asyncio.Task[None] | None:
        """Serve a request whose body is there. Returns the task it goes on in, None if it needs none."""
        try:
            flight = self._prepare(call)
        except GatewayError as refused:
            refuse(call, refused)
            return None
        instance = None
        if flight.try_enter():
            instance = flight.route.replicas.try_acquire(flight.candidates, flight.choose)
        if instance is not None:
            pool = self._pools[instance]
            flight.board(instance, pool)
            upstream = pool.kept()
            if upstream is not None:
                try:
                    flight.take_off(upstream, self._landed)
                except Exception as error:  # noqa: BLE001  # told to the log by _give_up
                    _give_up(flight, error)
                    flight.end()
                else:
                    call.door.watch(lambda: _abandon(flight))
                return None
        return asyncio.create_task(self._fly(flight))

    def _prepare(self, call: Call) -> Flight:
        """Find out what is wanted, and count it in. Raises ``GatewayError``."""
        return Flight(*self._wanted(call))

    def _wanted(self, call: Call) -> tuple[Call, Peek, Route, Tracked, Choose, Queue | None, int]:
        peeked = bodies.peek(call.headers, call.body)
        route = self._routes.get(peeked.model)
        if route is None:
            raise ModelNotFound(peeked.model)
        serving = self._serving[route.replicas.model]
        queue, chooser = serving.queue, serving.chooser
        priority = priority_of(call.headers, queue.settings.priority_header) if queue is not None else 0
        choose = chooser.blind or chooser.for_call(call)
        return call, peeked, route, serving.traffic.begin(call.arrived), choose, queue, priority

    # -- without a task ------------------------------------------------------------------------------------------

    def _landed(self, flight: Flight, error: UpstreamError | None) -> None:
        flight.call.door.close()
        if error is None:
            flight.record_answer()
            flight.end()
        elif flight.started:
            _broke_off(flight, error)
            flight.end()
        else:
            task = asyncio.create_task(self._fly(flight, error))
            flight.call.door.own(task)

    # -- in a task -----------------------------------------------------------------------------------------------

    async def _fly(self, flight: Flight, error: UpstreamError | None = None) -> None:
        """See it through to one outcome. ``error``: what the first attempt, on a kept connection, ran into."""
        door = flight.call.door
        leaving = Departure(door)
        try:
            with leaving:
                await self._attempt(flight, error)
        except ClientGone:
            flight.record(Outcome.CANCELLED, 499)
        except asyncio.CancelledError:
            _stop(flight)  # by the server, which ends: the client is told, and there is nobody else to tell
        except Exception as failed:  # noqa: BLE001  # told to the log by _give_up
            _give_up(flight, failed)
        finally:
            flight.end()
        await door.flush()

    async def _attempt(self, flight: Flight, error: UpstreamError | None) -> None:
        """Try replicas until one answers."""
        replicas = flight.route.replicas
        if not flight.admitted and not flight.try_enter():
            await self._enter(flight)
        while True:
            if flight.instance is None:
                instance = replicas.try_acquire(flight.candidates, flight.choose) or await self._wait(flight)
                if instance not in flight.route.rename:  # it lost the adapter while others were tried
                    instance.end()
                    flight.candidates = flight.route.instances
                    continue
                flight.board(instance, self._pools[instance])
            try:
                await self._exchange(flight, error)
                flight.record_answer()
                return
            except UpstreamError as failed:
                if flight.started:
                    _broke_off(flight, failed)
                    return
                if not await self._goes_on(flight, failed):
                    raise upstream_error(failed) from failed
                error = None

    async def _goes_on(self, flight: Flight, error: UpstreamError) -> bool:
        """Leave the instance that failed, and go on to another replica if it may. That one may have to wake."""
        gone, replicas = flight.instance, flight.route.replicas
        assert gone is not None
        if isinstance(error, Stopped):
            return False
        gone.failed(str(error))
        lost = isinstance(error, ConnectFailed | Dropped)
        if lost:
            replicas.look_at(gone)
        others = flight.route.without(flight.candidates, gone)
        if isinstance(error, Refused):  # a busy model is no reason to wake
            others = tuple(replicas.ready(others))
        flight.leave()
        flight.candidates = others
        if not flight.attempts.may_go_on(error):
            return False
        return bool(others) or (lost and await self._is_down(flight, gone))

    async def _is_down(self, flight: Flight, gone: Instance) -> bool:
        """Whether nobody is left to ask, and somebody sees to that: then it waits, as a request does that comes now."""
        if not gone.attended or gone.clock() >= _deadline(flight):
            return False
        await flight.route.replicas.find_out(gone)
        flight.candidates = flight.route.instances
        return gone.state is not State.READY

    async def _enter(self, flight: Flight) -> None:
        queue, call, tracked = flight.queue, flight.call, flight.tracked
        assert queue is not None
        began = tracked.wait_begins()
        try:
            async with self._signs(flight):
                await queue.enter(call.id, flight.priority, call.asked)
                flight.admitted = True
        finally:
            tracked.wait_ends(began)

    async def _wait(self, flight: Flight) -> Instance:
        tracked, candidates = flight.tracked, flight.candidates
        deadline = _deadline(flight)
        began = tracked.wait_begins()
        instance: Instance | None = None
        try:
            async with self._signs(flight):
                instance = await flight.route.replicas.acquire(candidates, flight.choose, deadline)
            return instance
        except DeadlinePassed as late:
            outlook = self._outlooks.of(flight.route.model)
            raise late if outlook is None else DeadlinePassed(f"{late}: {outlook}", outlook.seconds) from None
        except asyncio.CancelledError:
            if instance is not None:
                instance.end()
            raise
        finally:
            tracked.wake_wait_ends(began, served=instance is not None)

    def _signs(self, flight: Flight) -> AbstractAsyncContextManager[object]:
        model, identity = flight.route.model, flight.call.id
        serving = self._serving.get(model)
        after = serving.keepalive if serving is not None else None
        if after is None or not flight.peeked.stream:
            return nullcontext()
        return KeepAlive(flight.call, after, lambda: f"{model}: {self._outlooks.of(model, identity) or 'soon'}")

    async def _exchange(self, flight: Flight, lost: UpstreamError | None) -> None:
        """Send the request and see the answer through. ``lost``: it was sent already, on a kept connection."""
        pool = flight.pool
        assert pool is not None
        if lost is None:
            kept = pool.kept()
            try:
                await self._send(flight, kept or await pool.connect())
                return
            except Dropped as dropped:
                if kept is None:
                    raise
                lost = dropped
        if not isinstance(lost, Dropped):
            raise lost
        # It was closed just as we wrote, and most likely the engine has not seen the request. Once more here.
        flight.give_back()
        try:
            upstream = await pool.connect()
        except ConnectFailed:
            raise lost from None
        await self._send(flight, upstream)

    async def _send(self, flight: Flight, upstream: Upstream) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def landed(_: Flight, error: UpstreamError | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        try:
            flight.take_off(upstream, landed)
            await flight.call.door.finish(done)
        finally:
            flight.give_back()


def _deadline(flight: Flight) -> float:
    """Until when it waits for an engine to be ready."""
    among = flight.candidates or flight.route.replicas.instances
    return flight.call.asked + max(one.config.sleep.wake_timeout_seconds for one in among)


def refuse(call: Call, error: GatewayError) -> None:
    """Answer with an error, if nothing has been answered yet."""
    headers, body = envelope.answer(error, call.path, call.id)
    call.door.refuse(error.status, headers, body)


def _abandon(flight: Flight) -> None:
    """The client has left in the middle of a flight without a task."""
    flight.record(Outcome.CANCELLED, 499)
    flight.end()


def _stop(flight: Flight) -> None:
    stopped = Stopped("the gateway is being stopped")
    if flight.started:
        _broke_off(flight, stopped)
    else:
        _give_up(flight, upstream_error(stopped))


def _give_up(flight: Flight, error: Exception) -> None:
    """Tell the client what went wrong; what nobody expected is told to the log too."""
    if flight.refusal is not None and not flight.started and envelope.is_expected(error):
        flight.pass_on_refusal(flight.refusal)
        return
    found = envelope.gateway_error(error)
    if not envelope.is_expected(error):
        log.error("serving %s broke", flight.call.path, exc_info=error)
    flight.record(Outcome.FAILED, found.status)
    refuse(flight.call, found)


def _broke_off(flight: Flight, error: UpstreamError) -> None:
    assert flight.instance is not None
    log.warning("the answer of %s broke off: %s", flight.instance.name, error)
    flight.break_off(error)
    flight.record_answer(error)
