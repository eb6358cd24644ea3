"""One call on its way to an instance, and the answer on its way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from controller.fleet.instance import Instance
from controller.fleet.routes import Choose, Route
from router import envelope
from router.errors import BadUpstream, GatewayError, UpstreamTimeout, stopping
from router.proxy import body as bodies
from router.proxy.body import Peek
from router.proxy.call import Call
from router.proxy.door import Door
from router.proxy.headers import Headers, request_head, response_headers
from router.proxy.pool import Pool
from router.proxy.queue import Queue
from router.proxy.refusal import MAY_REFUSE, Answer, Holding, Refused
from router.proxy.retry import Attempts
from router.proxy.tokens import Tail, usage_in
from router.proxy.upstream import ConnectFailed, Dropped, Silent, Stopped, Upstream, UpstreamError
from router.traffic.monitor import SUCCESS, Outcome, Tracked

Landed = Callable[["Flight", UpstreamError | None], None]


class Flight:
    """Passes on what arrives as it comes. ``landed`` is called once, with the answer's end or what went wrong."""

    # What a flight begins with, here rather than in each: nearly all of it stays so.
    admitted = False
    refusal: Answer | None = None
    instance: Instance | None = None
    pool: Pool | None = None
    upstream: Upstream | None = None
    started = False
    abandoned = False
    status = 0
    _whole = b""
    _answer_headers: Headers = ()
    _tail: Tail | None = None
    _decided = False
    _name: str | None = None
    _keep: Callable[[bytes], None]
    _pass_on: Callable[[bytes, bytes], None]

    def __init__(
        self,
        call: Call,
        peeked: Peek,
        route: Route,
        tracked: Tracked,
        choose: Choose,
        queue: Queue | None = None,
        priority: int = 0,
    ) -> None:
        self.call = call
        self.peeked = peeked
        self.route = route
        self.tracked = tracked
        self.choose = choose
        self.queue = queue
        self.priority = priority
        self.candidates: Sequence[Instance] = route.instances
        self.landed: Landed = _nowhere
        self._stream = peeked.stream

    @cached_property
    def attempts(self) -> Attempts:
        return Attempts()

    def try_enter(self) -> bool:
        """Take a place in the model's queue if it has one free, or no limit."""
        self.admitted = self.queue is None or self.queue.try_enter()
        return self.admitted

    def end(self) -> None:
        """Leave the instance, and the place that was taken in the queue."""
        self.leave()
        if self.admitted:
            self.admitted = False
            if self.queue is not None:
                self.queue.leave()

    def board(self, instance: Instance, pool: Pool) -> None:
        """Take a place on ``instance``, which the route leads to; it is counted in there."""
        self._name = self.route.rename[instance]
        self.route.began(instance)
        self.instance = instance
        self.pool = pool

    def take_off(self, upstream: Upstream, landed: Landed) -> None:
        """Send the request. Must have boarded. Raises ``InvalidRequest`` when its body cannot be rewritten."""
        assert self.instance is not None and self.pool is not None
        self.upstream = upstream
        call, spec = self.call, self.instance.config.spec
        name = self._name
        body = call.body if name is None else bodies.rename(call.body, self.peeked, name)
        asked = call.asked if spec.gateway else None
        head = request_head(call.method, call.target, call.headers, spec, self.pool.host, call.id, len(body), asked)
        self.landed = landed
        upstream.begin(head, body, self)

    def leave(self) -> None:
        """Give the connection back, or close it if its answer is not whole, and count out on the instance."""
        self._decided = False
        self.give_back()
        if self.instance is not None:
            self.route.ended(self.instance)
            self.instance.end(abandoned=self.abandoned)
            self.instance = None
            self.abandoned = False

    def give_back(self) -> None:
        if self.upstream is not None and self.pool is not None:
            self.abandoned = not self.upstream.complete
            self.pool.release(self.upstream)
            self.upstream = None

    def record(self, outcome: Outcome, status: int) -> None:
        """Count it out, with what the engine said of tokens."""
        prompt, completion = usage_in(self._whole) if self._tail is None else self._tail.usage()
        self.tracked.end(outcome, status, prompt, completion)

    def record_answer(self, broken: UpstreamError | None = None) -> None:
        """Count it out, here and in what is known of the instance. ``broken``: its end is missing."""
        assert self.instance is not None
        status = self.status
        if broken is None and status < 500:
            self.instance.answered()
        else:
            self.instance.failed(str(broken or f"it answered {status}"))
        successful = broken is None and status < 400
        if successful:
            self.instance.served += 1
        self.record(SUCCESS if successful else Outcome.FAILED, status)

    def pass_on_refusal(self, answer: Answer) -> None:
        """The engine's own word, now that nobody else has done better."""
        self.started = True
        self.call.door.start(answer.status, answer.headers, answer.body, True)
        self.record(Outcome.FAILED, answer.status)

    def break_off(self, failed: UpstreamError) -> None:
        """End an answer that has begun so that the client can tell that it is not whole. A stream is told why."""
        last = b""
        if _is_event_stream(self._answer_headers):
            # The blank line first: it may have broken off in the middle of an event.
            last = b"\n\n" + envelope.event(upstream_error(failed), self.call.path)
        self.call.door.break_off(last)

    # -- the sink ------------------------------------------------------------------------------------------------

    def arrived(self, upstream: Upstream, chunk: bytes) -> None:
        last = upstream.complete
        door = self.call.door
        if self.started:
            if chunk:
                assert self._tail is not None
                self._tail.add(chunk)
            door.write(chunk, last)
        else:
            assert self.instance is not None
            status = upstream.status
            if status >= 500 and self._may_be_refusal(status):
                holding = Holding(self._decide, self.failed)
                upstream.redirect(holding)
                holding.arrived(upstream, chunk)
                return
            self.started = True
            self.status = status
            self._stream = self._stream and status < 400
            if last:
                self._whole = chunk
            if status < 500:
                self.instance.answer_began()
            door.start(status, self._headers(upstream), chunk, last)
            self._answer_headers = upstream.headers
            if not last:
                self._flow(upstream, door, chunk)
        if chunk and self._stream:
            self._first_piece()
        if last:
            self.landed(self, None)

    def more(self, upstream: Upstream, chunk: bytes, frame: bytes) -> None:
        if frame:
            self._keep(chunk)
        else:
            assert self._tail is not None
            self._tail.add(chunk)
        if self._stream:
            self._first_piece()
        self._pass_on(chunk, frame)
        self._step_aside(upstream)

    def _step_aside(self, upstream: Upstream) -> None:
        """Of what follows nothing need be known before its end."""
        write = self.call.door.straight
        if write is not None:
            upstream.straighten(self._keep, write)

    def _flow(self, upstream: Upstream, door: Door, first: bytes) -> None:
        """More is to come. What it needs is looked up once."""
        self._tail = tail = Tail()
        if first:
            tail.add(first)
        self._keep = tail.keep_frames()
        self._pass_on = door.pass_on
        door.on_pause, door.on_resume = upstream.pause, upstream.resume
        if door.paused:
            upstream.pause()

    def _headers(self, upstream: Upstream) -> list[tuple[bytes, bytes]]:
        assert self.instance is not None
        return response_headers(upstream.headers, self.call.id, self.instance.name_bytes, upstream.status >= 400)

    def _may_be_refusal(self, status: int) -> bool:
        """Whether to look at the answer first: only where another replica could be asked instead."""
        assert self.instance is not None
        ready = self.route.replicas.ready(self.candidates)
        return not self._decided and status in MAY_REFUSE and any(one is not self.instance for one in ready)

    def _decide(self, upstream: Upstream, body: bytes, is_refusal: bool) -> None:
        if is_refusal:
            self.refusal = Answer(upstream.status, self._headers(upstream), body)
            self.landed(self, Refused(f"it answered {upstream.status}"))
        else:
            self._decided = True
            upstream.redirect(self)
            self.arrived(upstream, body)

    def _first_piece(self) -> None:
        self._stream = False
        self.tracked.first_token()

    def failed(self, upstream: Upstream, error: UpstreamError) -> None:
        self.landed(self, error)


def upstream_error(error: UpstreamError) -> GatewayError:
    if isinstance(error, Stopped):
        return stopping()
    if isinstance(error, Silent):
        return UpstreamTimeout(f"The engine did not answer in time: {error}.", "engine_timeout")
    if isinstance(error, ConnectFailed):
        return BadUpstream(f"The engine cannot be reached: {error}.", "engine_unreachable")
    if isinstance(error, Dropped):
        return BadUpstream(f"The engine gave no answer: {error}.", "engine_disconnected")
    return BadUpstream(f"The engine's answer broke off: {error}.", "engine_disconnected")


def _is_event_stream(headers: Headers) -> bool:
    """One to which an event can be added: packed, or with a length, it would be spoilt by that.

    Whatever the request says: an engine takes 1 for true, and speech names its format.
    """
    found = dict(headers)
    kind = found.get(b"content-type", b"").lower()
    return kind.startswith(b"text/event-stream") and not found.keys() & {b"content-encoding", b"content-length"}


def _nowhere(flight: Flight, error: UpstreamError | None) -> None:
    pass
