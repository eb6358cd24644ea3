"""One answer on its way from an engine to a client."""

from __future__ import annotations

import asyncio

from router.proxy.door import Door
from router.proxy.headers import response_headers
from router.proxy.tokens import Tail
from router.proxy.upstream import Upstream, UpstreamError
from router.traffic.monitor import Tracked


class Exchange:
    """A sink that passes on what arrives as it comes. ``done`` ends with the answer, or with ``UpstreamError``."""

    __slots__ = (
        "_door",
        "_id",
        "_instance",
        "_stream",
        "_tracked",
        "done",
        "is_event_stream",
        "started",
        "status",
        "tail",
    )

    def __init__(self, door: Door, tracked: Tracked, identity: bytes, instance: bytes, stream: bool) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started = False
        self.is_event_stream = False
        self.status = 0
        self.tail = Tail()
        self._door = door
        self._tracked = tracked
        self._id = identity
        self._instance = instance
        self._stream = stream

    def arrived(self, upstream: Upstream, chunk: bytes) -> None:
        last = upstream.complete
        if chunk:
            self.tail.add(chunk)
            if self._stream and upstream.status < 400:
                self._stream = False
                self._tracked.first_token()
        door = self._door
        if self.started:
            door.write(chunk, last)
        else:
            self.started = True
            self.status = status = upstream.status
            self.is_event_stream = any(
                name == b"content-type" and value.startswith(b"text/event-stream") for name, value in upstream.headers
            )
            headers = response_headers(upstream.headers, self._id, self._instance, status >= 400)
            door.start(status, headers, chunk, last)
        if last:
            self._end(None)
        elif door.paused:
            door.on_resume = upstream.resume
            upstream.pause()

    def failed(self, upstream: Upstream, error: UpstreamError) -> None:
        self._end(error)

    def _end(self, error: UpstreamError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
