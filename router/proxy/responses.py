"""Responses that may be asked for again, and the way back to the instance that made each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

import msgspec

from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.routes import Choose, Route
from controller.fleet.state import AWAKE, SLEEPING
from router.errors import NotFound
from router.outlook import Outlooks
from router.proxy.body import Peek
from router.proxy.buffered import Buffered
from router.proxy.call import Call
from router.proxy.flight import Flight
from router.proxy.pipeline import Pipeline
from router.proxy.pool import Pool
from router.proxy.queue import Queue
from router.proxy.serving import Serving
from router.proxy.upstream import Upstream
from router.traffic.monitor import Tracked

REMEMBERED = 32_768
"""Responses of which it is known who made them, at least: those asked for or made last. They take 7 MB at most."""

LOOKED_AT = 65_536
"""Bytes from the beginning of an answer in which its id is looked for."""

PRESENT = AWAKE | SLEEPING
"""States in which an instance still has what it made; one that starts, or is gone, has lost it."""

CREATE = "/v1/responses"
_ID = "resp_[A-Za-z0-9_.:~-]{1,250}"
SAID = re.compile(rf'"id"\s*:\s*"({_ID})"'.encode())
"""Nothing a client sent can pass for it: inside a string the quotes are escaped."""
STORED = re.compile(rf"{CREATE}/({_ID})(/cancel|/input_items)?")


class Makers:
    """Which instance made a response. ``limit``: how many are remembered at least, and half of how many at most."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self.limit = limit
        # By hashes of ids, which are much smaller: two alike in 2**64 would only ask an engine that knows of nothing.
        self._newer: dict[int, str] = {}
        self._older: dict[int, str] = {}

    def remember(self, response_id: str, instance: str) -> None:
        if len(self._newer) >= self.limit:
            self._newer, self._older = {}, self._newer
        self._newer[hash(response_id)] = instance

    def of(self, response_id: str) -> str | None:
        """The instance's name. A response that is asked for is not forgotten."""
        key = hash(response_id)
        if key not in self._newer and key in self._older:
            self.remember(response_id, self._older[key])
        return self._newer.get(key)


class Creation(Flight):
    """Learns the id of the response that it brings, before the client does. ``makers``: None if it need not."""

    def __init__(
        self,
        makers: Makers | None,
        call: Call,
        peeked: Peek,
        route: Route,
        tracked: Tracked,
        choose: Choose,
        queue: Queue | None,
        priority: int,
    ) -> None:
        super().__init__(call, peeked, route, tracked, choose, queue, priority)
        self._makers = makers
        self._beginning = b""

    def arrived(self, upstream: Upstream, chunk: bytes) -> None:
        if upstream.status < 400:
            self._look_for_id(chunk)
        super().arrived(upstream, chunk)

    def more(self, upstream: Upstream, chunk: bytes, frame: bytes) -> None:
        self._look_for_id(chunk)
        super().more(upstream, chunk, frame)

    def _step_aside(self, upstream: Upstream) -> None:
        if self._makers is None:
            super()._step_aside(upstream)

    def _look_for_id(self, chunk: bytes) -> None:
        if self._makers is None or self.instance is None:
            return
        self._beginning += chunk
        if found := SAID.search(self._beginning):
            self._makers.remember(found[1].decode(), self.instance.name)
        if found or len(self._beginning) > LOOKED_AT:
            self._makers = None
            self._beginning = b""


class _Body(msgspec.Struct):
    store: msgspec.Raw = msgspec.Raw()
    previous_response_id: msgspec.Raw = msgspec.Raw()


_decoder = msgspec.json.Decoder(_Body)


class ResponsesPipeline(Pipeline):
    """The responses API: what goes on from a response, or asks for it, goes to the instance that made it."""

    def __init__(
        self,
        fleet: Fleet,
        pools: Mapping[Instance, Pool],
        serving: Mapping[str, Serving],
        buffered: Buffered,
        outlooks: Outlooks,
        makers: Makers,
    ) -> None:
        super().__init__(fleet.routes, pools, serving, buffered, outlooks)
        self._fleet = fleet
        self._makers = makers

    def _prepare(self, call: Call) -> Flight:
        return self._creation(call) if call.path == CREATE else self._errand(call)

    def _creation(self, call: Call) -> Flight:
        wanted = self._wanted(call)
        stored, previous = _about(call.body)
        flight = Creation(self._makers if stored else None, *wanted)
        maker = self._maker(previous)
        if maker is not None and maker in flight.route.instances and maker.state in PRESENT:
            flight.candidates = (maker,)
            flight.choose = _the_only
        return flight

    def _errand(self, call: Call) -> Flight:
        """To fetch a response, cancel it or delete it. Raises ``NotFound`` when nobody knows who made it."""
        named = STORED.fullmatch(call.path)
        maker = self._maker(named[1]) if named is not None else None
        if maker is None and named is not None and len(self._fleet.instances) == 1:
            maker = next(iter(self._fleet.instances.values()))  # nobody else can have made it
        if maker is None:
            raise _not_found(call.path.split("/")[3], self._makers.limit)
        query = call.target.partition(b"?")[2]
        call.target = b"?".join((call.path.encode(), query)) if query else call.path.encode()
        if call.method == "HEAD":
            call.method = "GET"  # engines know none; the server leaves out the body
        replicas = self._fleet.models[maker.config.model]
        route = Route(replicas.model, replicas, {maker: None}, None)
        peeked = Peek(replicas.model, stream=_streamed(query))
        flight = Flight(call, peeked, route, self._serving[route.model].traffic.begin(call.arrived), _the_only)
        flight.candidates = (maker,)
        return flight

    def _maker(self, response_id: str) -> Instance | None:
        return self._fleet.instances.get(self._makers.of(response_id) or "")


def _not_found(response_id: str, remembered: int) -> NotFound:
    shown = response_id if len(response_id) <= 200 else response_id[:200] + "…"
    message = (
        f"This gateway does not know which engine made the response {shown!r}: it was made before the gateway was "
        f"started, with `store` false, or before the last {remembered}, or never."
    )
    return NotFound(message, "response_not_found", param="response_id")


def _about(body: bytes) -> tuple[bool, str]:
    """Whether it may be asked for again, and which response it goes on from."""
    try:
        found = _decoder.decode(body)
        previous = msgspec.json.decode(bytes(found.previous_response_id) or b"null", type=str | None)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True, ""  # the engine says what is wrong with it
    return bytes(found.store) != b"false", previous or ""


def _streamed(query: bytes) -> bool:
    wanted = parse_qs(query.decode("latin-1")).get("stream", [""])[-1]
    return wanted.lower() in ("true", "1", "on", "yes")


def _the_only(ready: Sequence[Instance]) -> Instance:
    return ready[0]
