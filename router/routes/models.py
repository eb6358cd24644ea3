"""Which models there are, and how each is doing."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from controller.fleet.circuit import Circuit
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.routes import Route
from controller.fleet.state import State
from router.errors import ModelNotFound
from router.routes.endpoint import Endpoint


class InstanceEntry(BaseModel):
    name: str
    endpoint: str
    engine: str
    state: State
    in_flight: int
    circuit: Circuit
    problem: str
    labels: dict[str, str]


class ModelEntry(BaseModel):
    """``endpoint``: of its first instance, as kvcached has it."""

    endpoint: str
    state: State
    aliases: list[str]
    instances: list[InstanceEntry]


class Models(BaseModel):
    models: dict[str, ModelEntry]


class Card(BaseModel):
    """One name in OpenAI's list. ``root``: the model it leads to. ``parent``: the base of an adapter."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "torpor"
    root: str
    parent: str | None
    state: State


class Cards(BaseModel):
    object: str = "list"
    data: list[Card]


def instance_entry(instance: Instance) -> InstanceEntry:
    spec = instance.config.spec
    return InstanceEntry(
        name=instance.name,
        endpoint=spec.base_url,
        engine=spec.kind,
        state=instance.state,
        in_flight=instance.in_flight,
        circuit=instance.breaker.circuit,
        problem=instance.problem,
        labels=dict(instance.config.labels),
    )


def model_state(instances: Sequence[Instance]) -> State:
    """The state of the instance that is nearest to serving."""
    order = [
        State.READY,
        State.DRAINING,
        State.WAKING,
        State.FALLING_ASLEEP,
        State.ASLEEP,
        State.STARTING,
        State.UNKNOWN,
        State.STOPPED,
        State.FAILED,
    ]
    return min((instance.state for instance in instances), key=order.index)


def model_endpoints(fleet: Fleet) -> list[Endpoint]:
    created = int(time.time())

    def card(route: Route) -> Card:
        state = model_state(route.instances)
        return Card(id=route.name, created=created, root=route.model, parent=route.parent, state=state)

    async def list_cards(_: Request) -> Response:
        return JSONResponse(
            Cards(data=[card(route) for route in fleet.routes.values() if route.instances]).model_dump()
        )

    async def one_card(request: Request) -> Response:
        name = request.path_params["model"]
        route = fleet.routes.get(name)
        if route is None or not route.instances:
            raise ModelNotFound(name)
        return JSONResponse(card(route).model_dump())

    async def list_models(_: Request) -> Response:
        models = {}
        for model, replicas in fleet.models.items():
            names = dict.fromkeys(name for one in replicas.instances for name in one.config.names if name != model)
            models[model] = ModelEntry(
                endpoint=replicas.instances[0].config.spec.base_url,
                state=model_state(replicas.instances),
                aliases=list(names),
                instances=[instance_entry(one) for one in replicas.instances],
            )
        return JSONResponse(Models(models=models).model_dump())

    return [
        Endpoint("GET", "/v1/models", list_cards, "All names that `model` may have", "models", Cards),
        Endpoint("GET", "/v1/models/{model:path}", one_card, "One of them", "models", Card),
        Endpoint("GET", "/models", list_models, "All models and their instances", "models", Models),
    ]
