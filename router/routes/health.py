"""Whether the router lives, and whether the engines do. Asking wakes nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from router.errors import ModelNotFound
from router.routes.endpoint import Endpoint, InForce
from router.routes.models import InstanceEntry, instance_entry
from router.version import torpor_version


class Health(BaseModel):
    status: str = "healthy"


class ModelHealth(BaseModel):
    """``health``: each instance's address, and whether it is up (asleep is up)."""

    model: str
    health: dict[str, bool]


class AllHealth(BaseModel):
    model: str = "all"
    health: dict[str, dict[str, bool]]


class ServerInfo(BaseModel):
    """``uptime_seconds`` of the router. ``config_digest`` changes with the YAML's text."""

    status: str = "running"
    version: str
    started_at: float
    uptime_seconds: float
    config_file: str
    config_digest: str
    models: list[str]
    instances: list[InstanceEntry]


async def health_of(instances: Sequence[Instance]) -> dict[str, bool]:
    answers = await asyncio.gather(*(instance.engine.healthy() for instance in instances))
    return {one.config.spec.base_url: bool(up) for one, up in zip(instances, answers, strict=True)}


def health_endpoints(in_force: InForce, fleet: Fleet) -> list[Endpoint]:
    started, began = time.time(), time.monotonic()

    async def health(_: Request) -> Response:
        return JSONResponse(Health().model_dump())

    async def all_health(_: Request) -> Response:
        up = await health_of(list(fleet.instances.values()))
        grouped = {
            model: {one.config.spec.base_url: up[one.config.spec.base_url] for one in replicas.instances}
            for model, replicas in fleet.models.items()
        }
        return JSONResponse(AllHealth(health=grouped).model_dump())

    async def model_health(request: Request) -> Response:
        name = request.path_params["model"]
        found = fleet.find(name)
        if found is None:
            raise ModelNotFound(name)
        return JSONResponse(ModelHealth(model=name, health=await health_of(found[1])).model_dump())

    async def server_info(_: Request) -> Response:
        config = in_force()
        info = ServerInfo(
            version=torpor_version(),
            started_at=started,
            uptime_seconds=time.monotonic() - began,
            config_file=str(config.file),
            config_digest=config.digest,
            models=list(config.models),
            instances=[instance_entry(one) for one in fleet.instances.values()],
        )
        return JSONResponse(info.model_dump())

    return [
        Endpoint("GET", "/health", health, "Whether the router lives; needs no key", "health", Health),
        Endpoint("GET", "/health/all", all_health, "Whether each engine is up", "health", AllHealth),
        Endpoint("GET", "/health/{model:path}", model_health, "Of one model or instance", "health", ModelHealth),
        Endpoint("GET", "/get_server_info", server_info, "What runs here", "health", ServerInfo),
    ]
