"""Starting and stopping engine processes by hand. What is stopped so stays stopped. Without a key, from here only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from controller.fleet.errors import FleetError
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.supervisor.supervisor import Supervisor
from router.auth.guard import Key
from router.errors import Forbidden, ModelNotFound
from router.routes.admin import is_from_here
from router.routes.endpoint import Endpoint
from router.routes.sleep import Action, action, refusal

BY = "the API"


def process_endpoints(fleet: Fleet, supervisor: Supervisor, key: Key) -> list[Endpoint]:
    async def act(request: Request, verb: str, work: Callable[[Sequence[Instance], str], Awaitable[None]]) -> Response:
        if key.is_open and not is_from_here(request):
            raise Forbidden("Without router.api_key_env only this machine itself may do this.", "local_only")
        name = request.path_params["model"]
        found = fleet.find(name)
        if found is None:
            raise ModelNotFound(name)
        try:
            await work(found[1], BY)
        except FleetError as refused:
            return refusal(request, name, found[1], refused)
        message = f"Model {name} {verb} request successful"
        return JSONResponse(action(name, True, message, found[1]).model_dump())

    async def start(request: Request) -> Response:
        return await act(request, "start", supervisor.start)

    async def stop(request: Request) -> Response:
        return await act(request, "stop", supervisor.stop)

    refusals = {
        403: "Not from this machine",
        404: "No such model or instance",
        409: "Refused, with the reason",
        502: "It could not be done",
        503: "There is no room for it",
    }
    return [
        Endpoint("POST", START, start, "Start its process", "processes", Action, statuses=refusals),
        Endpoint("POST", STOP, stop, "End its process", "processes", Action, statuses=refusals),
    ]


START = "/action/start/{model:path}"
STOP = "/action/stop/{model:path}"
