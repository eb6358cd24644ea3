"""Changing what the gateway serves while it serves. Without a key, these are for this machine only."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from controller.reload.differences import Differences, Step
from router.auth.guard import Key
from router.errors import Forbidden
from router.reload import Reload
from router.routes.endpoint import Endpoint, Query, number

DRAIN = Query("seconds", "number", 30, "Seconds that running requests have")
LONGEST_DRAIN = 3600.0
FOREIGN = ("origin", "forwarded", "x-forwarded-for", "x-real-ip", "via")
"""Headers of a request that comes from a web page, or through another proxy, whoever its last hop is."""


Act = Callable[[Request], Awaitable[BaseModel]]


class Change(BaseModel):
    """Secrets are not shown."""

    key: str
    old: str
    new: str


class InstanceChange(BaseModel):
    """``step``: in place, add, remove, or restart: its engine has another command, and ``reasons`` say how."""

    name: str
    step: Step
    changes: list[Change]
    reasons: list[str]


class Plan(BaseModel):
    """``gateway``: needs a new start of the gateway. ``summary``: all of it, a line each."""

    settings: list[Change]
    gateway: list[Change]
    instances: list[InstanceChange]
    summary: list[str]


class Reloaded(BaseModel):
    """What the YAML changed, and what of that is ``left``: it needs an engine or the gateway to be started anew."""

    found: Plan
    left: Plan


class Service(BaseModel):
    instance: str
    in_service: bool


def plan_of(differences: Differences) -> Plan:
    return Plan.model_validate(
        {
            "settings": [_change(one) for one in differences.settings],
            "gateway": [_change(one) for one in differences.gateway],
            "instances": [
                {
                    "name": one.name,
                    "step": one.step,
                    "changes": [_change(change) for change in one.changes],
                    "reasons": list(one.reasons),
                }
                for one in differences.instances
            ],
            "summary": differences.lines(),
        }
    )


def guarded(key: Key, act: Act) -> Callable[[Request], Awaitable[Response]]:
    """Without a key, for this machine only."""

    async def handler(request: Request) -> Response:
        if key.is_open and not is_from_here(request):
            raise Forbidden("Without router.api_key_env only this machine itself may do this.", "local_only")
        return JSONResponse((await act(request)).model_dump())

    return handler


def admin_endpoints(reload: Reload, key: Key) -> list[Endpoint]:
    async def plan(_: Request) -> BaseModel:
        return plan_of(await reload.plan())

    async def apply(_: Request) -> BaseModel:
        found, left = await reload.apply()
        return Reloaded(found=plan_of(found), left=plan_of(left))

    async def drain(request: Request) -> BaseModel:
        name = request.path_params["instance"]
        await reload.drain(name, number(request, DRAIN, above=-1e-9, at_most=LONGEST_DRAIN))
        return Service(instance=name, in_service=False)

    async def admit(request: Request) -> BaseModel:
        name = request.path_params["instance"]
        await reload.admit(name)
        return Service(instance=name, in_service=True)

    mistakes = {403: "Not from this machine", 422: "The YAML has mistakes: all of them are in the message"}
    busy = {**mistakes, 409: "Still busy"}
    return [
        Endpoint("GET", RELOAD, guarded(key, plan), "What the YAML would change", "admin", Plan, statuses=mistakes),
        Endpoint("POST", RELOAD, guarded(key, apply), "Apply the YAML", "admin", Reloaded, statuses=mistakes),
        Endpoint("POST", DRAINED, guarded(key, drain), "Out of service", "admin", Service, (DRAIN,), statuses=busy),
        Endpoint("POST", ADMITTED, guarded(key, admit), "Back in service", "admin", Service),
    ]


RELOAD = "/admin/reload"
DRAINED = "/admin/drain/{instance:path}"
ADMITTED = "/admin/admit/{instance:path}"


def is_from_here(request: Request) -> bool:
    """Whether a program on this machine asks, for itself."""
    if request.client is None or any(name in request.headers for name in FOREIGN):
        return False
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _change(change: object) -> dict[str, str]:
    return {name: getattr(change, name) for name in ("key", "old", "new")}
