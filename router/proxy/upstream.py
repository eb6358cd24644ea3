"""One HTTP/1.1 connection to an engine, one exchange at a time.

What comes in is handed to a sink from within the transport's call: no task is switched for a piece of an answer.

UpstreamError
├── ConnectFailed     nothing was sent: the request may go elsewhere
├── Dropped           the connection ended before there was anything of an answer to pass on
├── Broken            it ended, or spoke garbage, in the middle of one
├── Refused           the answer says that it takes no requests now (``refusal``)
├── Silent            no byte came for too long
└── Stopped           the gateway itself stops
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Protocol

import httptools

from router.proxy.frame import END, LIMIT, SHAPES

MAX_HEAD_BYTES = 65_536
FRAMES = frozenset({b"content-length", b"transfer-encoding"})

COPIED_BYTES = 32_768
"""A smaller body is copied behind its head: the transport takes longer to send two pieces."""


class UpstreamError(Exception):
    pass


class ConnectFailed(UpstreamError):
    pass


class Dropped(UpstreamError):
    pass


class Broken(UpstreamError):
    pass


class Silent(UpstreamError):
    pass


class Stopped(UpstreamError):
    pass


class Sink(Protocol):
    """Where an answer goes. Called from the transport: must not block."""

    def arrived(self, upstream: Upstream, chunk: bytes) -> None:
        """One read brought the head (the first time), a piece of the body, the end (``upstream.complete``), or all.

        The head of a good answer with a length comes with its first piece: who has sent no more can still be replaced.
        """

    def more(self, upstream: Upstream, chunk: bytes, frame: bytes) -> None:
        """The same, when it was just a piece in the middle. ``frame``: the HTTP chunk it came as, if just one."""

    def failed(self, upstream: Upstream, error: UpstreamError) -> None:
        """No more will come. ``arrived`` may have been called before."""


class Upstream(asyncio.Protocol):
    """A connection. ``status`` and ``headers`` (names in lower case) are of the answer that is coming in.

    ``most_silence``: seconds without a byte, where less than the timeouts is enough.
    """

    __slots__ = (
        "_arrived",
        "_between",
        "_chunked",
        "_frame_bytes",
        "_framed",
        "_fresh",
        "_head_done",
        "_keep",
        "_parser",
        "_paused",
        "_sink",
        "_told",
        "_transport",
        "_write",
        "body_begun",
        "complete",
        "headers",
        "last_byte",
        "most_silence",
        "on_body",
        "sent_at",
        "started",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = True
        self.started = self.body_begun = False
        self.last_byte = self.sent_at = 0.0
        self.most_silence = inf
        self._transport: Any = None
        self._arrived: list[bytes] = []
        self.on_body = self._arrived.append  # the parser calls it, and nothing is faster
        self._paused = False
        self._between = False  # two chunks: the last byte of one has come, or of the head, and none of the next
        self._frame_bytes = 0
        self._head_done = False
        self._framed = False
        self._chunked = False
        self._told = False
        self._fresh = False
        self._sink: Sink | None = None
        self._keep: Callable[[bytes], None] = _nowhere
        self._write: Callable[[bytes], object] | None = None  # where whole chunks go, past the sink
        self._parser: Any = httptools.HttpResponseParser(self)

    # -- the exchange --------------------------------------------------------------------------------------------

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent on it."""
        return self.complete and self._transport is not None and not self._transport.is_closing()

    def begin(self, head: bytes, body: bytes, sink: Sink) -> None:
        """Send a request. Its answer, or its failure, goes to ``sink``."""
        self.complete = self.started = self.body_begun = False
        self._head_done = self._framed = self._chunked = self._told = self._between = False
        self.headers = []
        self._frame_bytes = 0
        self.most_silence = inf
        self._sink, self._write = sink, None
        self.last_byte = self.sent_at = monotonic()
        if len(body) < COPIED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def pause(self) -> None:
        """Stop reading: whoever takes the answer has enough of it."""
        if not self._paused and self._transport is not None and not self.complete:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._fresh = True  # the silence was ours
            self._transport.resume_reading()

    def silence(self, now: float) -> float:
        """Seconds without a byte, while one is due; to the pause between two calls."""
        if self._fresh or self._paused or self.complete:
            self._fresh = False
            self.last_byte = now
        return now - self.last_byte

    def excuse(self, seconds: float, now: float) -> None:
        """So many up to ``now`` are not the engine's."""
        self.last_byte = min(now, self.last_byte + seconds)
        self.sent_at = min(now, self.sent_at + seconds)

    def redirect(self, sink: Sink) -> None:
        """What is still to come of the answer goes to ``sink``."""
        if not self.complete:
            self._sink = sink

    def straighten(self, keep: Callable[[bytes], None], write: Callable[[bytes], object]) -> None:
        """From here on a chunk that comes whole is given to ``keep``, and as it came to ``write``: past the sink."""
        if self._sink is not None:
            self._keep, self._write = keep, write

    def fail(self, error: UpstreamError) -> None:
        """Give up on the answer."""
        sink, self._sink = self._sink, None
        self.abort()
        if sink is not None:
            sink.failed(self, error)

    def abort(self) -> None:
        """Close now; an engine takes that as its client having left, and stops generating."""
        self._sink = self._write = None
        if self._transport is not None:
            self._transport.abort()

    # -- the transport -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        # With more, uvloop writes only when it has read from everybody: of many requests at once all wait for the last.
        transport.set_write_buffer_limits(0)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        size = len(data)
        if self._between and size < LIMIT:
            cut, heads = SHAPES[size]
            head, chunk, end = cut(data)
            if head in heads and end == END:  # nearly every piece of a stream
                if self._write is not None:
                    self._fresh = True
                    try:
                        self._write(data)
                    except RuntimeError:  # it is closing, and has not said so yet: the sink finds out
                        self._write = None
                    else:
                        self._keep(chunk)
                        return
                if self._sink is not None:
                    self._fresh = self.body_begun = True
                    self._sink.more(self, chunk, data)
                    return
        if self.complete:
            self.abort()  # nothing was asked: whatever this is, no request may meet it
            return
        flowing = self._told
        self._fresh = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as garbage:
            if not self.complete:
                self.fail(Broken(f"it is no HTTP ({garbage})"))
                return
            self._transport.close()  # it came after a whole answer: that one is good, the connection is not
        if self._between and not data.endswith(END):
            self._between = False  # the next chunk has begun: no other line has an end that no callback is called for
        arrived, sink = self._arrived, self._sink
        if len(arrived) != 1 or sink is None:
            self._piece(data)
            return
        self.body_begun = True
        self._frame_bytes = 0
        if flowing and not self.complete:  # nearly every other piece of a stream
            sink.more(self, arrived.pop(), b"")
        else:  # nearly every other answer, all of it
            self.started = self._told = True
            if self.complete:
                self._sink = None
            sink.arrived(self, arrived.pop())

    def _piece(self, data: bytes) -> None:
        """Pass on what a read brought: a head, perhaps, and all that it brought of the body as one piece."""
        self.started = True
        if self._arrived:
            self.body_begun = True
            self._frame_bytes = 0
        elif not self.complete:  # a head, a trailer or a frame that may have no end
            self._frame_bytes += len(data)
            if self._frame_bytes > MAX_HEAD_BYTES:
                self.fail(Broken("its headers are too long"))
                return
        if not self._head_done:
            return
        chunk = b"".join(self._arrived)
        self._arrived.clear()
        if not chunk and not self.complete and (self._told or self._can_wait):
            return  # nothing but the frame of a chunk, or but a head
        self._told = True
        self._deliver(chunk)

    @property
    def _can_wait(self) -> bool:
        """Whether its head may go with what follows: not where the status alone has another engine asked."""
        return self._framed and not self._chunked and self.status < 400

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = self._parser = self._write = None
        self._keep = _nowhere  # so that nothing refers to itself, and waits for the collector
        if self._sink is None or self.complete:
            return
        if not self.started:
            self.fail(Dropped("it closed the connection without an answer"))
        elif error is None and self._head_done and not self._framed:
            self.complete = True  # such a body ends with its connection
            self._deliver(b"")
        elif not self._told:
            self.fail(Dropped("it closed the connection in the head of its answer, or just behind it"))
        else:
            self.fail(Broken("it closed the connection in the middle of its answer"))

    def _deliver(self, chunk: bytes) -> None:
        sink = self._sink
        if self.complete:
            self._sink = None
        if sink is not None:
            sink.arrived(self, chunk)

    # -- the parser ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("nobody asked for another answer")  # the parser gives up with it

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.complete or self._head_done:
            return  # a trailer: it ends with this hop
        name = name.lower()
        if name in FRAMES:
            self._framed = True
            self._chunked = value == b"chunked"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []  # 100 Continue and its like announce an answer, and are none
            self._framed = self._chunked = False
            return
        if self.status > 599:
            raise ValueError(f"status {self.status}")  # the parser gives up with it
        self._framed = self._framed or self.status in (204, 304)
        self._head_done = True
        self._between = self._chunked

    def on_chunk_header(self) -> None:
        self._between = False

    def on_chunk_complete(self) -> None:
        self._between = True

    def on_message_complete(self) -> None:
        self._between = False
        if not self._head_done or self.complete:
            return
        self.complete = True
        self.last_byte = monotonic()
        if self._write is not None:  # what a stream has left behind is not to be kept with its connection
            self._keep, self._write = _nowhere, None
        transport = self._transport
        if transport is None:
            return
        if not self._parser.should_keep_alive() or transport.get_write_buffer_size():
            transport.close()  # as it says; or it answered before it had the whole request, and may never read the rest


def _nowhere(chunk: bytes) -> None:
    pass
