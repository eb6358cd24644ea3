"""What happened to the fleet: as a list, and as it happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from controller.fleet.chronicle import Chronicle
from controller.fleet.journal import Event, Happened
from router.routes.endpoint import Endpoint, Query, flag, number

AFTER = Query("after", "integer", 0, "Only those with a larger number")
LIMIT = Query("limit", "integer", 100, "So many at most: the last ones, or with after the first ones")
STREAM = Query("stream", "boolean", False, "As server-sent events: those after the number, then each as it happens")

MOST = 1000
HEARTBEAT_SECONDS = 15.0
BEHIND = 1000
"""Events that may wait for a slow listener. One further behind is cut off, and can come again with its last id."""


class FleetEvent(BaseModel):
    """``time``: epoch seconds. ``cause``: why, or who asked. ``seconds``: how long it took. ``level``: of sleep."""

    number: int
    time: float
    what: Happened
    model: str
    instance: str
    cause: str
    detail: str
    seconds: float | None
    level: int | None


class FleetEvents(BaseModel):
    """Oldest first. ``last``: the largest number so far, for ``after``."""

    events: list[FleetEvent]
    last: int


def event_endpoints(chronicle: Chronicle, stopping: asyncio.Event) -> list[Endpoint]:
    async def events(request: Request) -> Response:
        wants_stream = "text/event-stream" in request.headers.get("accept", "") or flag(request, STREAM)
        after = int(number(request, AFTER, above=-1, at_most=float("inf")))
        if wants_stream:
            last = chronicle.journal.last_number
            after = _last_id(request) or (after if "after" in request.query_params else last)
            after = after if after <= last else 0  # a number of a journal that is lost: all of this one is new
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            return StreamingResponse(_live(chronicle, after, stopping), media_type="text/event-stream", headers=headers)
        limit = int(number(request, LIMIT, above=0, at_most=MOST))
        found = await chronicle.read(after, limit, newest="after" not in request.query_params)
        last = chronicle.journal.last_number
        return JSONResponse({"events": [asdict(event) for event in found], "last": last})

    return [
        Endpoint("GET", "/events", events, "What happened to the fleet", "fleet", FleetEvents, (AFTER, LIMIT, STREAM))
    ]


def _last_id(request: Request) -> int:
    text = request.headers.get("last-event-id", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


async def _live(chronicle: Chronicle, after: int, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    queue: asyncio.Queue[Event] = asyncio.Queue(BEHIND)
    behind = asyncio.Event()

    def heard(event: Event) -> None:
        try:
            queue.put_nowait(event)
        except asyncio.QueueFull:
            behind.set()

    chronicle.journal.listeners.append(heard)
    try:
        while page := await chronicle.read(after, MOST, newest=False):
            for event in page:
                yield _frame(event)
            after = page[-1].number
        while not stopping.is_set() and not behind.is_set():
            found = await _next(queue, stopping)
            if found is None:
                yield b": still here\n\n"
            elif found.number > after:
                after = found.number
                yield _frame(found)
    finally:
        chronicle.journal.listeners.remove(heard)


async def _next(queue: asyncio.Queue[Event], stopping: asyncio.Event) -> Event | None:
    """The next event; None when there is none for a while, or the gateway stops."""
    getting, stop = asyncio.create_task(queue.get()), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((getting, stop), timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return getting.result() if getting.done() else None
    finally:
        for task in (getting, stop):
            task.cancel()


def _frame(event: Event) -> bytes:
    text = json.dumps(asdict(event), ensure_ascii=False)
    return f"id: {event.number}\nevent: {event.what}\ndata: {text}\n\n".encode()
