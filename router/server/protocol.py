"""uvicorn's HTTP protocol, with a short way for engine paths, and stricter at the door.

A request to an engine path does not become an ASGI task: once its body is there it is handed to the application as a
``Call``, whose door writes to the client's transport. The parser, pipelining and everything else is uvicorn's.

What is no proper request is refused in the shape of all our errors, and the connection ends with that: what comes
after it is not read as another request. Nothing here sets a timer; ``patrol`` asks each connection once a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from router import envelope
from router.errors import GatewayError, RequestTimeout, Unavailable
from router.proxy.body import too_large
from router.proxy.call import Call
from router.proxy.headers import REQUEST_ID, new_id, request_id
from router.server.deaf import Deaf
from router.server.door import DirectDoor
from router.server.head import NOTED, VERSIONS, judge, measure, measure_bytes, odd, without_offer
from router.server.limits import DEFAULT, MOST_AHEAD, Limits, Patience, Stage, spare
from router.server.short_way import ShortWay
from router.server.unframed import Unframed

log = logging.getLogger(__name__)

KEEP_DISCARDING = 4
"""Times the limit that is read of a body that is refused: a client cut off while it sends never sees the answer."""

SPECIAL = NOTED | {REQUEST_ID}
BETWEEN, HEAD, BODY = range(3)
"""Which part of a message is being read."""


class _Over(Exception):
    """The answer before this request ends the connection."""


class DirectProtocol(HttpToolsProtocol):
    _door: DirectDoor | None = None
    """Of the answer in progress, or the last one."""
    _reading: DirectDoor | None = None
    """Of the request whose body is being read; None if uvicorn does that."""
    _way: ShortWay | None = None
    _part = BETWEEN
    _number = 0
    """Of the message being read; the first is 1."""
    _size = 0
    """Bytes of its body."""
    _arrived = 0
    """Bytes of the read being parsed."""
    _split_head = 0
    """The number of the message whose head came in several reads ..."""
    _head_bytes = 0
    """... and how many bytes of it came after the first."""
    _frame_bytes = 0
    """Read since the last that brought some of its body."""
    _plain: list[tuple[bytes, bytes]] | None = None
    """The noted headers of a request that was found to be good: another with the same needs no judging."""
    _named = b""
    """The id of the request being read, if its client has given it one."""
    _offered = False
    """The request offers to speak another protocol: it is read once more, without the offer."""
    _hung_up = False
    leaving = False  # another gateway has taken over: the next answer is the last here

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        limits: Limits = DEFAULT,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = limits
        self._patience = Patience()
        self._noted: list[tuple[bytes, bytes]] = []

    # -- the parser ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._arrived = len(data)
        message, size = self._number, self._size
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError as broken:
            self._give_up(broken)
        else:
            try:
                if self._part == HEAD:
                    self._head_goes_on()
                elif self._part == BODY:
                    self._body_goes_on(self._number != message or self._size != size)
            except GatewayError as too_much:
                self._refuse(too_much)

    def on_message_begin(self) -> None:
        self._part = HEAD
        self._number += 1
        self.url = b""
        self.headers = []
        self._noted = []
        self._named = b""
        self._reading = None
        self.expect_100_continue = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part == BODY:
            return  # a trailer is no header
        name = name.lower()
        if name in SPECIAL:
            if name == REQUEST_ID:
                self._named = self._named or value
            else:
                self._noted.append((name, value))
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.keep_alive:
            raise _Over
        noted, parser, encoded = self._noted, self.parser, False
        keep, known = parser.should_keep_alive(), noted == self._plain
        # A lone Host and to be kept: 1.0 would have to say that. To ask costs something, for each of many requests.
        version = "1.1" if known and keep and len(noted) == 1 else parser.get_http_version()
        if not known or version not in VERSIONS:
            encoded = self._judge(version)
        url, headers, limits = self.url, self.headers, self.limits
        if (
            len(url) > limits.url
            or len(headers) > limits.headers
            or self._arrived > limits.head
            or self._split_head == self._number
        ):
            measure(url, headers, limits)
        self._size = 0
        if self._offered:
            return
        way = self._way
        if way is None:
            self._way = way = getattr(self.app, "short_way", None)
        found = way.find(url) if way is not None and not encoded else None
        free = cycle is None or cycle.response_complete
        if way is None or found is None or not free or parser.get_method() != b"POST":
            self._become_asgi()
            return
        self._refusal = way.guard(headers)
        if self._refusal is not None and self.expect_100_continue:
            raise self._refusal  # its body need not come
        self._part = BODY
        modern = version == "1.1"
        self._door = self._reading = door = DirectDoor(self, way.buffered, modern, keep and modern and not self.leaving)
        self._path, self._serve = found
        self._identity = self._named or new_id()
        self._head = headers
        self.cycle = door  # type: ignore[assignment]  # it keeps the books that uvicorn looks into
        if self.expect_100_continue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        door, way = self._reading, self._way
        if door is None or way is None:
            if not self._offered:
                super().on_body(body)
            return
        if self._refusal is None:
            if self._size > way.buffered.largest:
                self._refusal = too_large(way.buffered.largest)
            elif door.keep(body):
                return
            else:
                self._refusal = way.buffered.full()
            door.let_go()
        if self._size > KEEP_DISCARDING * way.buffered.largest and not door.response_complete:
            door.keep_alive = False
            self._answer(self._refusal)

    def on_message_complete(self) -> None:
        self._part = BETWEEN
        door = self._reading
        if door is None:
            if not self._offered:
                super().on_message_complete()
            return
        if door.response_complete:
            return
        if self._refusal is not None:
            self._answer(self._refusal)
            return
        call = Call("POST", self._path, self.url, self._head, door.take_body(), door, time.monotonic(), self._identity)
        try:
            task = self._serve(call)
        except Exception:
            log.exception("serving %s broke", self._path)
            self.transport.abort()
            return
        if task is not None:
            door.own(task)

    def _become_asgi(self) -> None:
        """As if uvicorn had done it all."""
        url, headers, number = self.url, self.headers, self._number
        if self.expect_100_continue:  # now, for an application that answers without reading would leave it open
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        super().on_message_begin()
        self.url, self._number = url, number
        self.headers.extend(headers)
        super().on_headers_complete()
        if self.leaving:
            self.cycle.keep_alive = False
        if self.scope["http_version"] == "1.0":
            self.cycle.__class__ = Unframed  # it is uvicorn that makes it, and nothing has been sent
        if 0 < len(self.pipeline) < MOST_AHEAD:
            self.flow.resume_reading()  # it waits for its turn; its client's leaving is to be seen at once
        self._part = BODY

    # -- what is no proper request -------------------------------------------------------------------------------

    def _judge(self, version: str) -> bool:
        """Whether the body is encoded. Raises ``InvalidRequest``."""
        reading = judge(self._noted, version)
        self._plain = self._noted if reading.plain else None
        self.expect_100_continue = reading.expects
        self._offered = reading.offers and self.parser.should_upgrade()
        return reading.encoded

    def _head_goes_on(self) -> None:
        """The read brought no end of the head: raises ``GatewayError`` if there is too much of it already."""
        if self._split_head == self._number:
            self._head_bytes += self._arrived
        else:
            self._split_head, self._head_bytes = self._number, 0
        measure(self.url, self.headers, self.limits)
        measure_bytes(self._head_bytes, self.limits)

    def _body_goes_on(self, came: bool) -> None:
        """The same of trailers and chunks' extensions, which nobody gets. ``came``: the read brought some of it."""
        self._frame_bytes = 0 if came else self._frame_bytes + self._arrived
        measure_bytes(self._frame_bytes, self.limits)

    def _decline(self, rest: bytes) -> None:
        """Read a request again without its offer to speak another protocol: the parser has passed over its body."""
        if not self._offered:
            self._refuse(odd("This is no tunnel."))
            return
        head = without_offer(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self._offered = False
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def _give_up(self, broken: httptools.HttpParserError) -> None:
        """What comes cannot be read as a request, or must not be."""
        cause = broken.__context__
        if isinstance(cause, _Over):
            self._read_no_more()
        elif isinstance(cause, GatewayError):
            self._refuse(cause)
        elif isinstance(broken, httptools.HttpParserCallbackError):
            self._refuse(odd("The URL cannot be understood."))
        else:
            self._refuse(odd(f"This is no HTTP/1.1 request: {broken}."))

    def _refuse(self, error: GatewayError) -> None:
        """Answer what is being read with ``error``, and end the connection. What was asked before is answered first."""
        self._read_no_more()
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            if self._part == BODY:
                self._linger()  # it has been answered
            else:
                self._write_error(error)
        elif self._part != BODY:
            cycle.keep_alive = False  # an earlier request is still being answered, and that was the last
        elif self._reading is not None:
            cycle.keep_alive = False
            self._answer(error)
        elif cycle.response_started or self.pipeline:
            self.transport.abort()  # in the middle of an answer nothing else can be said
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            self._write_error(error)
        self._part = BETWEEN

    def _answer(self, error: GatewayError) -> None:
        """Through the door of the request being read."""
        assert self._reading is not None
        headers, body = envelope.answer(error, self._path, self._identity)
        self._reading.refuse(error.status, headers, body)

    def _write_error(self, error: GatewayError) -> None:
        """Past all doors."""
        path = self.url.partition(b"?")[0].decode("latin-1") if self._number else ""
        headers, body = envelope.answer(error, path, request_id(self.headers or []))
        lines = b"".join(b"%b: %b\r\n" % one for one in headers if one[0] != b"connection")
        self.transport.write(b"%b%bconnection: close\r\n\r\n%b" % (STATUS_LINE[error.status], lines, body))
        self._linger()

    def hang_up(self) -> None:
        """The last answer has been written."""
        if self._part == BODY:
            self._linger()
        else:
            self._read_no_more()
            self.transport.close()

    def _linger(self) -> None:
        """End, but let the client read the answer first: closed at once, it would be lost to what is still coming."""
        self._read_no_more()
        self._hung_up = True
        if not self.transport.is_closing():
            self.transport.write_eof()

    def _read_no_more(self) -> None:
        self.parser = Deaf(self.transport)  # type: ignore[assignment]  # all of it that is used from here on

    # -- the transport -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        transport.set_write_buffer_limits(0)  # type: ignore[attr-defined]  # see ``Upstream``
        most = self.limits.connections
        if most is not None and len(self.connections) > most:
            problem = "The gateway has as many connections as it may have open files for."
            self._write_error(Unavailable(problem, "too_many_connections", retry_after=1, close=True))
            if len(self.connections) > most + spare(most):
                self.transport.close()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        door = self._door
        super().connection_lost(exc)
        if door is not None:
            door.left()
        self._door = self._reading = self.cycle = None  # type: ignore[assignment]  # nothing waits for the collector

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._door is not None:
            self._door.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._door is not None:
            self._door.resume()

    # -- patience ------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """End the connection if its client has taken too long with what it is to do next."""
        stage, progress = self._stage()
        if self._patience.is_over(stage, progress, now, self.limits):
            if stage in (Stage.HEAD, Stage.BODY) and self._part != BETWEEN:
                limit = f"{self.limits.seconds[stage]:g} s"
                problem = f"The head took longer than {limit}." if stage is Stage.HEAD else f"No body came for {limit}."
                self._refuse(RequestTimeout(problem, "request_timeout", close=True))
            elif stage in (Stage.IDLE, Stage.LEAVING, Stage.HEAD):
                self.transport.close()
            else:
                self.transport.abort()

    def _stage(self) -> tuple[Stage, int]:
        """What is waited for, and a number that changes when there is progress."""
        transport, cycle = self.transport, self.cycle
        if self._hung_up:
            return Stage.LINGERING, 0
        if transport.is_closing():
            return Stage.WRITING, transport.get_write_buffer_size()
        if cycle is None or cycle.response_complete:
            if self._part == BODY:
                return Stage.REST, self._number
            if self._part == HEAD or (cycle is None and not self.leaving):
                return Stage.HEAD, self._number
            return Stage.LEAVING if self.leaving else Stage.IDLE, self._number
        if self.flow.write_paused:
            return Stage.WRITING, transport.get_write_buffer_size()
        if self._part == BODY and not self.flow.read_paused:
            return Stage.BODY, self._size
        return Stage.WORKING, 0
