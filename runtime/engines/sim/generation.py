"""One reply in the making: its tokens, each due at a time fixed when the reply starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "abort", "error"]

# Tokens already due are written together, as a real engine does when it is behind.
MAX_BATCH = 16


@dataclass(frozen=True)
class Order:
    """What a client asked for, checked and in the engine's words."""

    request_id: str
    model: str
    voice: str
    prompt: str
    prompt_tokens: int
    max_tokens: int
    stops: tuple[str, ...] = ()
    stream: bool = False
    adapter: str | None = None


@dataclass(frozen=True)
class Pace:
    """Seconds to the first token, and from one to the next."""

    first: float
    between: float


class Generation:
    def __init__(self, order: Order, arrived_at: float) -> None:
        self.order = order
        self.pieces: Sequence[str] = ()
        self.stop_reason: str | None = None
        self.cached_tokens = 0
        self.sent = 0
        self.cut_at: int | None = None  # a fault strikes after so many tokens
        self.ended: FinishReason | None = None  # ended from outside, before all was said
        self.arrived_at = arrived_at
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self.gaps: list[float] = []
        self._frozen_at: float | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._shift = 0.0

    @property
    def finish_reason(self) -> FinishReason:
        if self.ended is not None:
            return self.ended
        return "stop" if self.stop_reason is not None else "length"

    @property
    def text(self) -> str:
        return "".join(self.pieces[: self.sent])

    @property
    def struck(self) -> bool:
        """The point where a fault strikes has been reached."""
        return self.ended is None and self.cut_at is not None and self.sent >= self.cut_at

    def end(self, reason: FinishReason) -> None:
        self.ended = reason
        self._wake()

    def freeze(self) -> None:
        if self._frozen_at is None:
            self._frozen_at = asyncio.get_running_loop().time()
            self._wake()

    def thaw(self) -> None:
        if self._frozen_at is not None:
            self._shift += asyncio.get_running_loop().time() - self._frozen_at
            self._frozen_at = None
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _rest_until(self, due: float) -> float:
        """Wait for a time that moves when the reply is frozen; return at once when it is ended."""
        loop = asyncio.get_running_loop()
        while self.ended is None:
            now = loop.time()
            if self._frozen_at is None and now >= due + self._shift:
                return now
            waiter = self._waiter = loop.create_future()
            timer = None if self._frozen_at is not None else loop.call_at(due + self._shift, self._wake)
            try:
                await waiter
            finally:
                if timer is not None:
                    timer.cancel()
        return loop.time()

    async def batches(self, pace: Pace, on_tokens: Callable[[int], None]) -> AsyncIterator[Sequence[str]]:
        """The tokens as they fall due. Token k is due at start + first + k * between, whatever came before."""
        start = asyncio.get_running_loop().time()
        self.started_at = start
        total = len(self.pieces) if self.cut_at is None else min(self.cut_at, len(self.pieces))
        last = await self._rest_until(start + pace.first)
        while self.ended is None and self.sent < total:
            now = await self._rest_until(start + pace.first + self.sent * pace.between)
            if self.ended is not None:
                break
            size = MAX_BATCH
            if pace.between > 0:
                due = int((now - self._shift - start - pace.first) / pace.between + 1e-6) + 1
                size = max(1, min(size, due - self.sent))
            batch = self.pieces[self.sent : min(total, self.sent + size)]
            self._note(now, last, len(batch))
            last = now
            self.sent += len(batch)
            on_tokens(len(batch))
            yield batch
            if pace.between == 0:
                await asyncio.sleep(0)

    def _note(self, now: float, last: float, size: int) -> None:
        if self.first_token_at is None:
            self.first_token_at = now
            size -= 1
        self.gaps.extend([(now - last) / size] * size if size else ())
