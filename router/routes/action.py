"""What is done by hand to the instances that a path names, and how that is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from controller.fleet.errors import FleetError
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.state import State
from router import envelope
from router.errors import ModelNotFound


class Action(BaseModel):
    model_name: str
    success: bool
    message: str
    instances: dict[str, State]


async def act(
    request: Request, fleet: Fleet, verb: str, work: Callable[[Sequence[Instance]], Awaitable[None]]
) -> Response:
    """Do ``work``. Raises ``ModelNotFound``."""
    name = request.path_params["model"]
    found = fleet.find(name)
    if found is None:
        raise ModelNotFound(name)
    _, instances = found
    try:
        await work(instances)
    except FleetError as refused:
        return _refusal(request, name, instances, refused)
    return JSONResponse(_outcome(name, True, f"Model {name} {verb} request successful", instances))


def _outcome(name: str, success: bool, message: str, instances: Sequence[Instance]) -> dict[str, object]:
    states = {one.name: one.state for one in instances}
    return Action(model_name=name, success=success, message=message, instances=states).model_dump()


def _refusal(request: Request, name: str, instances: Sequence[Instance], refused: FleetError) -> Response:
    """kvcached's fields, and the error as the OpenAI client understands it."""
    error = envelope.gateway_error(refused)
    failed = _outcome(name, False, str(refused), instances)
    body = {**failed, "retry_after_seconds": refused.retry_after, **envelope.content(error, request.scope["path"])}
    response = JSONResponse(body, error.status)
    response.raw_headers.extend(envelope.headers(error))
    return response
