"""Who sleeps, and putting to sleep and waking by hand, under both sets of paths that kvcached's documents name."""

from __future__ import annotations

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from controller.fleet.fleet import Fleet
from controller.fleet.instance import STAGED, Instance
from controller.fleet.routes import Replicas
from controller.fleet.state import SLEEPING, State
from router.outlook import Outlook, Outlooks
from router.routes.action import Action, act
from router.routes.endpoint import Endpoint, InForce, Query, flag
from router.routes.traffic import IdleDetails, idle_details
from router.sleep.manager import MANUAL, SleepManager
from router.traffic.monitor import TrafficMonitor

STAGED_START = Query("staged", "boolean", False, "It is how it was started: min_sleep_duration does not hold")
FORCE = Query("force", "boolean", False, "Wake it even before min_sleep_duration is over")


class SleepingModel(BaseModel):
    """``sleep_start_time``: epoch seconds. ``sleep_duration``: seconds so far."""

    sleep_start_time: float
    sleep_duration: float
    manual_sleep: bool


class InstanceSleep(BaseModel):
    """``level`` is 0 when nobody knows, or while awake. ``wakeable_in_seconds``: what is left of min_sleep_duration."""

    state: State
    level: int
    cause: str
    sleep_start_time: float | None
    sleep_duration: float | None
    wakeable_in_seconds: float
    in_flight: int
    problem: str


class WaitOutlook(BaseModel):
    """``cause``: what it waits for. ``position``: of the model among those that wait for room; 1 is next."""

    cause: str
    position: int | None
    expected_seconds: float | None


class ModelSleep(BaseModel):
    """``sleeping``: none of its instances is awake. ``waiting``: requests that wait for one of them.

    ``outlook``: what a request may expect that comes now; null when it is served at once.
    """

    sleeping: bool
    waiting: int
    outlook: WaitOutlook | None
    instances: dict[str, InstanceSleep]


class SleepStatus(BaseModel):
    sleeping_models: dict[str, SleepingModel]
    sleep_candidates: list[str]
    auto_sleep_enabled: bool
    idle_threshold_seconds: float
    wakeup_on_request: bool
    models: dict[str, ModelSleep]


class CandidateDetails(IdleDetails):
    can_sleep: bool = True


class Candidates(BaseModel):
    sleep_candidates: list[str]
    candidate_details: dict[str, CandidateDetails]
    idle_threshold_seconds: float
    auto_sleep_enabled: bool


def sleeping_model(replicas: Replicas) -> SleepingModel:
    """Of the instance that fell asleep last, for until then one was awake."""
    last = max((one for one in replicas.instances if one.state in SLEEPING), key=lambda one: one.asleep_since)
    return SleepingModel(
        sleep_start_time=last.asleep_since, sleep_duration=last.sleep_duration(), manual_sleep=last.cause == MANUAL
    )


def instance_sleep(instance: Instance) -> InstanceSleep:
    asleep = instance.state in SLEEPING
    return InstanceSleep(
        state=instance.state,
        level=instance.level if asleep else 0,
        cause=instance.cause if asleep else "",
        sleep_start_time=instance.asleep_since if asleep else None,
        sleep_duration=instance.sleep_duration() if asleep else None,
        wakeable_in_seconds=instance.remaining_sleep(),
        in_flight=instance.in_flight,
        problem=instance.problem,
    )


def _model_sleep(replicas: Replicas, waiting: int, found: Outlook | None) -> ModelSleep:
    outlook = None
    if found is not None:
        outlook = WaitOutlook(cause=found.cause, position=found.position, expected_seconds=found.seconds)
    instances = {one.name: instance_sleep(one) for one in replicas.instances}
    return ModelSleep(sleeping=replicas.sleeping, waiting=waiting, outlook=outlook, instances=instances)


def sleep_endpoints(
    in_force: InForce, fleet: Fleet, monitor: TrafficMonitor, manager: SleepManager, outlooks: Outlooks
) -> list[Endpoint]:
    async def status(_: Request) -> Response:
        answer = SleepStatus(
            sleeping_models={name: sleeping_model(of) for name, of in fleet.models.items() if of.sleeping},
            sleep_candidates=manager.candidates(),
            auto_sleep_enabled=in_force().sleep.auto_sleep_enabled,
            idle_threshold_seconds=in_force().sleep.idle_threshold_seconds,
            wakeup_on_request=in_force().sleep.wakeup_on_request,
            models={
                name: _model_sleep(of, monitor.models[name].waiting, outlooks.of(name))
                for name, of in fleet.models.items()
            },
        )
        return JSONResponse(answer.model_dump())

    async def candidates(_: Request) -> Response:
        found = manager.candidates()
        answer = Candidates(
            sleep_candidates=found,
            candidate_details={
                name: CandidateDetails(**idle_details(monitor.models[name]).model_dump()) for name in found
            },
            idle_threshold_seconds=in_force().sleep.idle_threshold_seconds,
            auto_sleep_enabled=in_force().sleep.auto_sleep_enabled,
        )
        return JSONResponse(answer.model_dump())

    async def sleep(request: Request) -> Response:
        cause = STAGED if flag(request, STAGED_START) else MANUAL
        return await act(request, fleet, "sleep", lambda instances: manager.sleep(instances, cause))

    async def wake(request: Request) -> Response:
        force = flag(request, FORCE)
        return await act(request, fleet, "wake", lambda instances: manager.wake(instances, force=force))

    refusals = {404: "No such model or instance", 409: "Refused, with the reason", 502: "The engine did not do it"}
    return [
        *(Endpoint("GET", path, status, "Who sleeps", "sleep", SleepStatus) for path in STATUS),
        *(
            Endpoint("GET", path, candidates, "Who could be put to sleep now", "sleep", Candidates)
            for path in CANDIDATES
        ),
        *(
            Endpoint("POST", path, sleep, "Put to sleep", "sleep", Action, (STAGED_START,), statuses=refusals)
            for path in SLEEP
        ),
        *(Endpoint("POST", path, wake, "Wake", "sleep", Action, (FORCE,), statuses=refusals) for path in WAKE),
    ]


STATUS = ("/model/sleep/status", "/sleep/status")
CANDIDATES = ("/model/sleep/candidates", "/sleep/candidates")
SLEEP = ("/model/sleep/{model:path}", "/action/sleep/{model:path}")
WAKE = ("/model/wake/{model:path}", "/action/wakeup/{model:path}")
