"""Who waits for a place in flight, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from router.proxy.queue import Queue
from router.routes.endpoint import Endpoint

SHOWN = 1000
"""Requests listed for a model at most."""


class WaitingRequest(BaseModel):
    """``id``: its x-request-id. ``position``: 1 is next."""

    id: str
    position: int
    priority: int
    expected_wait_seconds: float


class QueueState(BaseModel):
    """``expected_wait_seconds``: for one that comes now. ``requests``: the first 1,000 in their order."""

    max_in_flight: int
    in_flight: int
    max_queued: int
    waiting: int
    expected_wait_seconds: float
    requests: list[WaitingRequest]


class Queues(BaseModel):
    """Models that have ``max_in_flight``."""

    models: dict[str, QueueState]


def queue_state(queue: Queue) -> QueueState:
    waiters = queue.waiters
    return QueueState(
        max_in_flight=int(queue.limit),
        in_flight=queue.in_flight,
        max_queued=queue.settings.max_queued,
        waiting=len(waiters),
        expected_wait_seconds=queue.expected_wait(len(waiters)) if queue.in_flight >= queue.limit else 0.0,
        requests=[
            WaitingRequest(
                id=one.id.decode("latin-1"),
                position=ahead + 1,
                priority=one.priority,
                expected_wait_seconds=queue.expected_wait(ahead),
            )
            for ahead, one in enumerate(islice(waiters, SHOWN))
        ],
    )


def queue_endpoints(queues: Mapping[str, Queue]) -> list[Endpoint]:
    async def state(_: Request) -> Response:
        found = Queues(models={model: queue_state(queue) for model, queue in queues.items()})
        return JSONResponse(found.model_dump())

    return [Endpoint("GET", "/queue", state, "Who waits for a place in flight", "traffic", Queues)]
