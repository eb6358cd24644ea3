"""Blocking work off the event loop that is never left running."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Stopped(Exception):
    """Raised in a thread whose work is no longer wanted."""


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As ``asyncio.to_thread``; when cancelled it waits for the thread first, so that nobody writes any more."""
    return await _to_the_end(asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs)), lambda: None)


async def in_stoppable_thread(call: Callable[[Callable[[], None]], T]) -> T:
    """For work that takes long: ``call`` gets a function to call now and then, which raises when it must stop."""
    stop = threading.Event()

    def go_on() -> None:
        if stop.is_set():
            raise Stopped

    return await _to_the_end(asyncio.ensure_future(asyncio.to_thread(call, go_on)), stop.set)


async def _to_the_end(work: asyncio.Future[T], stop: Callable[[], None]) -> T:
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop()
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue  # told twice: the first one is still being obeyed
        if not work.cancelled():
            work.exception()  # seen: that it was cancelled is what the caller gets
        raise
