"""The door of a stream whose head went out before its engine had said anything.

From then on the status is 200, whatever the engine answers: what is no stream can only become an error event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from router import envelope
from router.proxy.door import Door, Headers

LONGEST_BYTES = 65_536
"""Of an engine's error, passed on within the event."""


class OpenedDoor:
    """Writes to ``inner``, which has been started. ``path``: says how clients of it know an error event."""

    def __init__(self, inner: Door, path: str) -> None:
        self._inner = inner
        self._path = path
        self._failing = False
        self._body = bytearray()

    @property
    def paused(self) -> bool:
        return self._inner.paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._inner.paused = paused

    @property
    def on_pause(self) -> Callable[[], None]:
        return self._inner.on_pause

    @on_pause.setter
    def on_pause(self, pause: Callable[[], None]) -> None:
        self._inner.on_pause = pause

    @property
    def on_resume(self) -> Callable[[], None]:
        return self._inner.on_resume

    @on_resume.setter
    def on_resume(self, resume: Callable[[], None]) -> None:
        self._inner.on_resume = resume

    def watch(self, left: Callable[[], None]) -> None:
        self._inner.watch(left)

    def close(self) -> None:
        self._inner.close()

    def own(self, task: asyncio.Task[None]) -> None:
        self._inner.own(task)

    def start(self, status: int, headers: Headers, chunk: bytes, last: bool) -> None:
        self._failing = status >= 400 or not _is_plain_stream(headers)
        self.write(chunk, last)

    def write(self, chunk: bytes, last: bool) -> None:
        if not self._failing:
            self._inner.write(chunk, last)
            return
        if len(self._body) < LONGEST_BYTES:
            self._body += chunk
        if last:
            self._tell(bytes(self._body))

    def pass_on(self, chunk: bytes, frame: bytes) -> None:
        if self._failing:
            self.write(chunk, False)
        else:
            self._inner.pass_on(chunk, frame)

    @property
    def straight(self) -> Callable[[bytes], object] | None:
        return None if self._failing else self._inner.straight

    def refuse(self, status: int, headers: Headers, body: bytes) -> None:
        if not self._body:
            self._tell(body)

    def break_off(self, chunk: bytes) -> None:
        if self._failing and not chunk:
            self._tell(bytes(self._body))
        else:
            self._inner.break_off(chunk)

    def push(self) -> None:
        self._inner.push()

    def finish(self, done: asyncio.Future[None]) -> Awaitable[None]:
        return self._inner.finish(done)

    async def flush(self) -> None:
        await self._inner.flush()

    def _tell(self, body: bytes) -> None:
        self._inner.break_off(envelope.event_of(body, self._path))


def _is_plain_stream(headers: Headers) -> bool:
    found = dict(headers)
    return found.get(b"content-type", b"").startswith(b"text/event-stream") and b"content-encoding" not in found
