"""A model's limit of requests in flight, and who waits for a place: lower priorities first, then first come.

A place that is left goes to the first who waits, and to nobody who comes at that moment.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable
from itertools import count

from controller.config.schema import ModelSection
from router.errors import TooManyRequests, Unavailable

NEW, OLD = 0.2, 0.8
"""Weights in the moving average of the time between two places left."""

FIRST_GUESS = 2.0
"""Seconds that a place is taken for, as long as nobody has left one."""


class Waiter:
    """``id``: the request's. ``priority``: lower goes first. ``since``: on the queue's clock."""

    def __init__(self, identity: bytes, priority: int, turn: int, since: float) -> None:
        self.id = identity
        self.priority = priority
        self.since = since
        self.place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rank = (priority, turn)

    def __lt__(self, other: Waiter) -> bool:
        return self._rank < other._rank


class Queue:
    """Of one model whose settings have ``max_in_flight``."""

    def __init__(
        self, model: str, limit: float, settings: ModelSection, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.model = model
        self.limit = limit
        self.settings = settings
        self.in_flight = 0
        self.refusals: Counter[str] = Counter()
        self._clock = clock
        self._waiters: list[Waiter] = []
        self._turns = count()
        self._moved_at = clock()  # a place was left, or the last free one was taken
        self._interval = FIRST_GUESS / limit

    @property
    def waiters(self) -> list[Waiter]:
        """In the order in which they will be served."""
        return sorted(self._waiters)

    def try_enter(self) -> bool:
        """Take a place if one is free. Whoever has one must ``leave``."""
        if self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        if self.in_flight >= self.limit:
            self._moved_at = self._clock()
        return True

    async def enter(self, identity: bytes, priority: int, asked: float) -> None:
        """Wait for a place. ``asked``: on the queue's clock. Raises ``TooManyRequests`` or ``Unavailable``."""
        if self.try_enter():
            return
        waiter = Waiter(identity, priority, next(self._turns), self._clock())
        self._join(waiter)
        try:
            async with asyncio.timeout(asked + self.settings.queue_timeout_seconds - self._clock()):
                await waiter.place
        except TimeoutError:
            if not self._has(waiter):
                raise self._late(waiter) from None
        except asyncio.CancelledError:
            if self._has(waiter):
                self.leave()
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                heapq.heapify(self._waiters)

    def become(self, limit: float, settings: ModelSection) -> None:
        """From now on with these. Whoever waits goes on waiting, but for those that have a place now."""
        self.limit = limit
        self.settings = settings
        self._moved_at = self._clock()
        while self.in_flight < limit and self._waiters:
            self.in_flight += 1
            self._give()

    def leave(self) -> None:
        """Give a place back: to the first who waits, if anybody does."""
        now = self._clock()
        if self.in_flight >= self.limit:  # only then does the pace say how long others will wait
            self._interval = OLD * self._interval + NEW * (now - self._moved_at)
        self._moved_at = now
        if self.in_flight > self.limit:  # which was lowered
            self.in_flight -= 1
        else:
            self._give()

    def expected_wait(self, ahead: int) -> float:
        """Seconds until somebody with so many before it has a place, at the pace of late, while none is free.

        Never more than anybody waits: after so long, those ahead have had their turn, or were told that it is too late.
        """
        stalled = self._clock() - self._moved_at
        return min(max((ahead + 1) * self._interval, stalled), self.settings.queue_timeout_seconds)

    def _give(self) -> None:
        """Give a place that is counted already."""
        while self._waiters:
            waiter = heapq.heappop(self._waiters)
            if not waiter.place.done():
                waiter.place.set_result(None)
                return
        self.in_flight -= 1

    def _join(self, waiter: Waiter) -> None:
        if len(self._waiters) >= self.settings.max_queued:
            last = max(self._waiters, default=waiter)
            if last.priority <= waiter.priority:
                raise self._full()
            self._waiters.remove(last)
            heapq.heapify(self._waiters)
            if not last.place.done():  # its client may have left in this very moment
                last.place.set_exception(self._full())
        heapq.heappush(self._waiters, waiter)

    def _has(self, waiter: Waiter) -> bool:
        """Whether it was given a place, if only at the last moment."""
        place = waiter.place
        return place.done() and not place.cancelled() and place.exception() is None

    def _full(self) -> TooManyRequests:
        self.refusals["queue_full"] += 1
        waiting = len(self._waiters)
        wait = self.expected_wait(waiting)
        return TooManyRequests(
            f"{self.model!r} has {self.in_flight} requests in flight and {waiting} waiting, and takes no more. "
            f"The wait would be about {wait:.0f} s.",
            "queue_full",
            retry_after=wait,
        )

    def _late(self, waiter: Waiter) -> Unavailable:
        self.refusals["queue_timeout"] += 1
        ahead = sum(one < waiter for one in self._waiters)
        wait = self.expected_wait(ahead)
        return Unavailable(
            f"{self.model!r} was busy for {self.settings.queue_timeout_seconds:g} s: {ahead} requests are still ahead, "
            f"which is about {wait:.0f} s more.",
            "queue_timeout",
            retry_after=wait,
        )
