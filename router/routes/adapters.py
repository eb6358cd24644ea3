"""Adapters: wanted, looked at, not wanted any more. How one gets where it should be is the controller's."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from controller.adapters.controller import AdapterController
from controller.adapters.phases import Phase
from controller.adapters.record import Record
from controller.adapters.spec import AdapterSpec, adapter_name
from controller.config.explain import problem_of
from controller.config.mistakes import key_of
from router.errors import InvalidRequest, TooLarge
from router.routes.endpoint import Endpoint
from state.adapters import Entry

LARGEST_SPEC = 1 << 20  # bytes
LINES = 200
"""How much of a diary is shown: the newest."""


class _Shown(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class AdapterCondition(_Shown):
    type: str
    status: str
    reason: str
    message: str
    last_transition_time: str


class AdapterTransition(_Shown):
    phase: str
    at: str
    reason: str
    message: str


class AdapterPlace(_Shown):
    """One instance. ``failures`` in a row; ``next_try``: when it is tried again, null when it is not."""

    loaded: bool
    failures: int
    next_try: str | None
    problem: str


class AdapterProgress(_Shown):
    """Of what is being fetched; null: not known yet."""

    done_bytes: int
    total_bytes: int | None
    done_files: int
    total_files: int | None


class AdapterStatus(_Shown):
    """``instances``: those that serve it now; one that sleeps does so once it is woken. ``candidates``: that may.

    ``progress``: while it is being fetched.
    """

    phase: Phase
    conditions: list[AdapterCondition]
    history: list[AdapterTransition]
    instances: list[str]
    candidates: list[str]
    desired_replicas: int
    ready_replicas: int
    progress: AdapterProgress | None
    places: dict[str, AdapterPlace]


class AdapterAnswer(_Shown):
    """``origin``: yaml when the YAML file declares it, else api. ``generation`` grows with each change of the spec."""

    name: str
    origin: str
    generation: int
    created_at: str
    spec: dict[str, Any]
    status: AdapterStatus


class AdapterList(_Shown):
    object: str = "list"
    data: list[AdapterAnswer]


class AdapterEvent(_Shown):
    type: str
    reason: str
    message: str
    at: str


class AdapterEvents(_Shown):
    object: str = "list"
    data: list[AdapterEvent]


def adapter_endpoints(controller: AdapterController) -> list[Endpoint]:
    async def put(request: Request) -> Response:
        name, spec = _name(request), _spec(await _body(request))
        return await _answer(controller, await controller.put(name, spec))

    async def get(request: Request) -> Response:
        return await _answer(controller, controller.get(request.path_params["name"]))

    async def delete(request: Request) -> Response:
        return await _answer(controller, await controller.delete(request.path_params["name"]))

    async def every(_: Request) -> Response:
        found = [await _shown(controller, record) for record in list(controller.records.values())]
        return JSONResponse(AdapterList(data=found).model_dump(mode="json", by_alias=True))

    async def events(request: Request) -> Response:
        record = controller.get(request.path_params["name"])
        found = [_event(one) for one in await controller.events(record, LINES)]
        return JSONResponse(AdapterEvents(data=found).model_dump(mode="json", by_alias=True))

    one, unknown = "/adapters/{name}", {404: "No such adapter"}
    refused = {400: "A mistake in the spec", 409: "The name is taken, or the YAML file has it"}
    return [
        Endpoint("GET", "/adapters", every, "All adapters", "adapters", AdapterList),
        Endpoint("GET", one + "/events", events, "What happened to it", "adapters", AdapterEvents, statuses=unknown),
        Endpoint("GET", one, get, "One adapter", "adapters", AdapterAnswer, statuses=unknown),
        Endpoint("PUT", one, put, "Want it so", "adapters", AdapterAnswer, body=AdapterSpec, statuses=refused),
        Endpoint("DELETE", one, delete, "Want it no more", "adapters", AdapterAnswer, statuses=unknown),
    ]


async def _answer(controller: AdapterController, record: Record) -> Response:
    return JSONResponse((await _shown(controller, record)).model_dump(mode="json", by_alias=True))


async def _shown(controller: AdapterController, record: Record) -> AdapterAnswer:
    history = await controller.history(record, LINES)
    serving = [instance.name for instance in record.route.instances]
    status = AdapterStatus(
        phase=record.phase,
        conditions=[
            AdapterCondition(
                type=one.type,
                status=one.status,
                reason=one.reason,
                message=one.message,
                last_transition_time=_time(one.since),
            )
            for one in record.conditions
        ],
        history=[_transition(one) for one in history],
        instances=serving,
        candidates=controller.candidates(record),
        desired_replicas=controller.desired(record),
        ready_replicas=len(serving),
        progress=AdapterProgress(**asdict(record.progress)) if record.progress is not None else None,
        places={name: _place(record, name) for name in record.places},
    )
    return AdapterAnswer(
        name=record.name,
        origin=record.origin,
        generation=record.generation,
        created_at=_time(record.created_at),
        spec=record.spec.shown(),
        status=status,
    )


def _place(record: Record, instance: str) -> AdapterPlace:
    place = record.places[instance]
    waits = place.tries.failures and not place.tries.used_up
    return AdapterPlace(
        loaded=place.path is not None,
        failures=place.tries.failures,
        next_try=_time(place.tries.next_at) if waits else None,
        problem=place.tries.problem,
    )


def _transition(entry: Entry) -> AdapterTransition:
    return AdapterTransition(phase=entry.kind, at=_time(entry.at), reason=entry.reason, message=entry.message)


def _event(entry: Entry) -> AdapterEvent:
    return AdapterEvent(type=entry.kind, reason=entry.reason, message=entry.message, at=_time(entry.at))


def _time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(request: Request) -> str:
    try:
        return adapter_name(request.path_params["name"])
    except ValueError as wrong:
        raise InvalidRequest(f"The adapter's name {wrong}.", "invalid_name", param="name") from None


def _spec(body: bytes) -> AdapterSpec:
    try:
        return AdapterSpec.model_validate(json.loads(body))
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
        told = [f"{key_of(error['loc'])}: {_told(error)}" if error["loc"] else _told(error) for error in errors]
        raise InvalidRequest("; ".join(told), "invalid_spec", param=key_of(errors[0]["loc"]) or None) from None
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not valid JSON.", "invalid_json") from None


def _told(error: Any) -> str:
    return {"missing": "is missing", "extra_forbidden": "unknown key"}.get(error["type"]) or problem_of(error)


async def _body(request: Request) -> bytes:
    chunks: list[bytes] = []
    async for chunk in request.stream():
        chunks.append(chunk)
        if sum(map(len, chunks)) > LARGEST_SPEC:
            raise TooLarge(f"A spec is at most {LARGEST_SPEC} bytes.", "body_too_large", close=True)
    return b"".join(chunks)
