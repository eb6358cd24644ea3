"""Who is in memory, how much each takes, and who waits for room."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.state import State
from controller.residency import tenants
from controller.residency.arbiter import Arbiter
from router.routes.endpoint import Endpoint


class Place(BaseModel):
    """One GPU, or the host. In bytes; ``free`` is below 0 where more is held than there is."""

    capacity: int
    used: int
    free: int


class Measured(BaseModel):
    """``asleep``: by level, those that it was seen at."""

    awake: dict[str, int]
    asleep: dict[int, dict[str, int]]


class Tenant(BaseModel):
    """One instance. In bytes, by place: ``held`` now, ``awake`` and ``asleep`` (by level) what it takes then.

    ``measured``: what it was seen to take, where there is a driver to ask; the YAML's figures go before it.
    ``managed``: it takes part. ``wake_seconds``: what its wake is expected to take.
    """

    model: str
    state: State
    level: int
    managed: bool
    pinned: bool
    priority: int
    in_flight: int
    held: dict[str, int]
    awake: dict[str, int]
    asleep: dict[int, dict[str, int]]
    measured: Measured | None
    wake_seconds: float
    leaving: bool


class Departed(BaseModel):
    """One that is out of the configuration, and still has requests or a process. ``state``: of its engine."""

    model: str
    state: State
    in_flight: int
    held: dict[str, int]


class WaitingModel(BaseModel):
    """A model that waits for room. ``position``: 1 is next. ``requests``: how many of its requests wait."""

    model: str
    position: int
    cause: str
    why: str
    waited_seconds: float
    requests: int


class Residency(BaseModel):
    places: dict[str, Place]
    instances: dict[str, Tenant]
    departed: dict[str, Departed]
    waiting: list[WaitingModel]
    max_wait_seconds: float
    min_awake_seconds: float


def residency_endpoints(arbiter: Arbiter, fleet: Fleet) -> list[Endpoint]:
    async def residency(_: Request) -> Response:
        return JSONResponse(_residency(arbiter, fleet).model_dump(mode="json"))

    return [Endpoint("GET", "/residency", residency, "Who is in memory, and who waits for room", "fleet", Residency)]


def _measured(instance: Instance) -> Measured | None:
    if (found := instance.measured) is None:
        return None
    return Measured(awake=dict(found.awake), asleep={level: dict(amount) for level, amount in found.asleep.items()})


def _residency(arbiter: Arbiter, fleet: Fleet) -> Residency:
    books, config = arbiter.books(), arbiter.config
    used = books.used
    tenancies = {}
    for name, one in fleet.instances.items():
        settings, footprint = config.settings_of(one.config.model), tenants.footprint_of(one)
        tenancies[name] = Tenant(
            model=one.config.model,
            state=one.state,
            level=one.level if one.state is State.ASLEEP else 0,
            managed=tenants.is_managed(one, config),
            pinned=settings.pinned,
            priority=settings.priority,
            in_flight=one.in_flight,
            held=dict(books.held[name]),
            awake=dict(footprint.awake),
            asleep={level: dict(amount) for level, amount in tenants.levels(one).items()},
            measured=_measured(one),
            wake_seconds=tenants.wake_seconds(one),
            leaving=name in arbiter.leaving,
        )
    places = {
        place: Place(capacity=capacity, used=used.get(place, 0), free=capacity - used.get(place, 0))
        for place, capacity in books.capacity.items()
    }
    return Residency(
        places=places,
        instances=tenancies,
        departed={
            name: Departed(
                model=one.config.model, state=one.engine_state, in_flight=one.in_flight, held=dict(books.held[name])
            )
            for name, one in arbiter.holders.items()
            if name not in fleet.instances
        },
        waiting=[
            WaitingModel(
                model=one.model,
                position=position,
                cause=one.cause,
                why=one.refusal or one.why,
                waited_seconds=one.among[0].clock() - one.since,
                requests=fleet.models[one.model].waiting,
            )
            for position, one in enumerate(arbiter.waiting, 1)
        ],
        max_wait_seconds=config.residency.max_wait_seconds,
        min_awake_seconds=config.residency.min_awake_seconds,
    )
