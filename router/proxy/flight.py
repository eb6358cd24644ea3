"""One call on its way to an instance, and the answer on its way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controller.fleet.instance import Instance
from controller.fleet.routes import Choose, Route
from router import envelope
from router.errors import BadUpstream, GatewayError, UpstreamTimeout
from router.proxy import body as bodies
from router.proxy.body import Peek
from router.proxy.call import Call
from router.proxy.headers import request_head, response_headers
from router.proxy.pool import Pool
from router.proxy.tokens import Tail
from router.proxy.upstream import ConnectFailed, Dropped, Silent, Upstream, UpstreamError
from router.traffic.monitor import Outcome, Tracked

Landed = Callable[["Flight", UpstreamError | None], None]


class Flight:
    """Passes on what arrives as it comes. ``landed`` is called once, with the answer's end or what went wrong."""

    __slots__ = (
        "_stream",
        "abandoned",
        "call",
        "candidates",
        "choose",
        "instance",
        "is_event_stream",
        "landed",
        "peeked",
        "pool",
        "route",
        "started",
        "status",
        "tail",
        "tracked",
        "upstream",
    )

    def __init__(self, call: Call, peeked: Peek, route: Route, tracked: Tracked, choose: Choose) -> None:
        self.call = call
        self.peeked = peeked
        self.route = route
        self.tracked = tracked
        self.choose = choose
        self.candidates: Sequence[Instance] = route.instances
        self.instance: Instance | None = None
        self.pool: Pool | None = None
        self.upstream: Upstream | None = None
        self.landed: Landed = _nowhere
        self.started = False
        self.abandoned = False
        self.is_event_stream = False
        self.status = 0
        self.tail = Tail()
        self._stream = peeked.stream

    def board(self, instance: Instance, pool: Pool) -> None:
        """Take a place on ``instance``; it is counted in there."""
        self.route.began(instance)
        self.instance = instance
        self.pool = pool

    def take_off(self, upstream: Upstream, landed: Landed) -> None:
        """Send the request. Must have boarded. Raises ``InvalidRequest`` when its body cannot be rewritten."""
        assert self.instance is not None and self.pool is not None
        self.upstream = upstream
        call, spec = self.call, self.instance.config.spec
        name = self.route.rename[self.instance]
        body = call.body if name is None else bodies.rename(call.body, self.peeked, name)
        head = request_head(call.method, call.target, call.headers, spec, self.pool.host, call.id, len(body))
        self.landed = landed
        upstream.begin(head, body, self)

    def leave(self) -> None:
        """Give the connection back, or close it if its answer is not whole, and count out on the instance."""
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
        prompt, completion = self.tail.usage() if self.started else (0, 0)
        self.tracked.end(outcome, status, prompt, completion)

    def record_answer(self, whole: bool) -> None:
        successful = whole and self.status < 400
        self.record(Outcome.SUCCESSFUL if successful else Outcome.FAILED, self.status)

    def break_off(self, failed: UpstreamError) -> None:
        """End an answer that has begun so that the client can tell that it is not whole. A stream is told why."""
        last = b""
        if self.is_event_stream:
            # The blank line first: it may have broken off in the middle of an event.
            last = b"\n\n" + envelope.event(upstream_error(failed), self.call.path)
        self.call.door.break_off(last)

    # -- the sink ------------------------------------------------------------------------------------------------

    def arrived(self, upstream: Upstream, chunk: bytes) -> None:
        last = upstream.complete
        door = self.call.door
        if chunk:
            self.tail.add(chunk)
        if self.started:
            door.write(chunk, last)
        else:
            self.started = True
            self.status = status = upstream.status
            self._stream = self._stream and status < 400
            if self.peeked.stream:
                self.is_event_stream = _is_event_stream(upstream)
            assert self.instance is not None
            headers = response_headers(upstream.headers, self.call.id, self.instance.name_bytes, status >= 400)
            door.start(status, headers, chunk, last)
        if chunk and self._stream:
            self._first_piece()
        if last:
            self.landed(self, None)
        elif door.paused:
            door.on_resume = upstream.resume
            upstream.pause()

    def more(self, upstream: Upstream, chunk: bytes) -> None:
        self.tail.add(chunk)
        if self._stream:
            self._first_piece()
        door = self.call.door
        door.write(chunk, False)
        if door.paused:
            door.on_resume = upstream.resume
            upstream.pause()

    def _first_piece(self) -> None:
        self._stream = False
        self.tracked.first_token()

    def failed(self, upstream: Upstream, error: UpstreamError) -> None:
        self.landed(self, error)


def upstream_error(error: UpstreamError) -> GatewayError:
    if isinstance(error, Silent):
        return UpstreamTimeout(f"The engine did not answer in time: {error}.", "engine_timeout")
    if isinstance(error, ConnectFailed):
        return BadUpstream(f"The engine cannot be reached: {error}.", "engine_unreachable")
    if isinstance(error, Dropped):
        return BadUpstream(f"The engine gave no answer: {error}.", "engine_disconnected")
    return BadUpstream(f"The engine's answer broke off: {error}.", "engine_disconnected")


def _is_event_stream(upstream: Upstream) -> bool:
    """One to which an event can be added: packed, or with a length, it would be spoilt by that."""
    found = dict(upstream.headers)
    kind = found.get(b"content-type", b"").lower()
    return kind.startswith(b"text/event-stream") and not found.keys() & {b"content-encoding", b"content-length"}


def _nowhere(flight: Flight, error: UpstreamError | None) -> None:
    pass
