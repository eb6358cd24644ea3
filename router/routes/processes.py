"""Starting and stopping engine processes by hand. What is stopped so stays stopped. Without a key, from here only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.supervisor.supervisor import Supervisor
from router.auth.guard import Key
from router.errors import Forbidden
from router.routes.action import Action, act
from router.routes.admin import is_from_here
from router.routes.endpoint import Endpoint

BY = "the API"


def process_endpoints(fleet: Fleet, supervisor: Supervisor, key: Key) -> list[Endpoint]:
    async def by_hand(
        request: Request, verb: str, work: Callable[[Sequence[Instance], str], Awaitable[None]]
    ) -> Response:
        if key.is_open and not is_from_here(request):
            raise Forbidden("Without router.api_key_env only this machine itself may do this.", "local_only")
        return await act(request, fleet, verb, lambda instances: work(instances, BY))

    async def start(request: Request) -> Response:
        return await by_hand(request, "start", supervisor.start)

    async def stop(request: Request) -> Response:
        return await by_hand(request, "stop", supervisor.stop)

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
