"""Traffic statistics, under both sets of paths that kvcached's documents name."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from controller.fleet.fleet import Fleet
from router.errors import ModelNotFound
from router.routes.endpoint import Endpoint, Handler, Query, flag, number
from router.traffic.histogram import Histogram
from router.traffic.monitor import LONGEST_WINDOW, ModelTraffic, Outcome, TrafficMonitor

WINDOW = Query("window", "integer", 60, "Seconds over which rates are taken, up to a day")
HISTORY = Query("history", "boolean", False, "Add the figures of each second (or minute, past an hour) in the window")
THRESHOLD = Query("threshold", "number", 300, "Seconds without a request after which a model is idle")


class Percentiles(BaseModel):
    """Seconds, within two per cent; null before the first."""

    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, histogram: Histogram) -> Percentiles:
        return cls(
            p50=histogram.percentile(0.5),
            p90=histogram.percentile(0.9),
            p95=histogram.percentile(0.95),
            p99=histogram.percentile(0.99),
        )


class Stats(BaseModel):
    """``total_requests`` = successful + failed + cancelled (the client left) + in flight. Times in seconds."""

    total_requests: int
    successful_requests: int
    failed_requests: int
    cancelled_requests: int
    in_flight_requests: int
    waiting_requests: int
    success_rate: float | None
    request_rate: float
    avg_response_time: float
    response_time: Percentiles
    time_to_first_token: Percentiles
    wait_time: Percentiles
    prompt_tokens: int
    completion_tokens: int
    status_classes: dict[str, int]
    last_activity_time: float | None
    idle_time_seconds: float
    is_idle: bool
    history: list[dict[str, float]] | None = None


class ModelStats(Stats):
    model_name: str


class AllTraffic(BaseModel):
    traffic_stats: dict[str, Stats]
    window_seconds: int


class ModelTrafficAnswer(BaseModel):
    model_stats: ModelStats
    window_seconds: int


class IdleDetails(BaseModel):
    idle_time_seconds: float
    total_requests: int
    last_activity_time: float | None


class IdleModels(BaseModel):
    idle_models: list[str]
    idle_threshold_seconds: float
    idle_model_details: dict[str, IdleDetails]
    idle_models_count: int


class ActiveDetails(BaseModel):
    request_rate: float
    total_requests: int
    avg_response_time: float
    last_activity_time: float | None
    in_flight_requests: int


class ActiveModels(BaseModel):
    active_models: list[str]
    idle_threshold_seconds: float
    window_seconds: int
    active_model_details: dict[str, ActiveDetails]
    active_models_count: int


def stats_of(traffic: ModelTraffic, window: int, threshold: float, history: bool) -> dict[str, object]:
    successful = traffic.outcomes[Outcome.SUCCESSFUL]
    failed = traffic.outcomes[Outcome.FAILED]
    idle = traffic.idle_seconds()
    return {
        "total_requests": traffic.total,
        "successful_requests": successful,
        "failed_requests": failed,
        "cancelled_requests": traffic.outcomes[Outcome.CANCELLED],
        "in_flight_requests": traffic.in_flight,
        "waiting_requests": traffic.waiting,
        "success_rate": successful / (successful + failed) if successful + failed else None,
        "request_rate": traffic.rate(window),
        "avg_response_time": average_response_time(traffic),
        "response_time": Percentiles.of(traffic.latency),
        "time_to_first_token": Percentiles.of(traffic.ttft),
        "wait_time": Percentiles.of(traffic.wait),
        "prompt_tokens": traffic.prompt_tokens,
        "completion_tokens": traffic.completion_tokens,
        "status_classes": dict(traffic.statuses),
        "last_activity_time": traffic.last_activity_wall,
        "idle_time_seconds": idle,
        "is_idle": idle > threshold,
        "history": traffic.history(window) if history else None,
    }


def average_response_time(traffic: ModelTraffic) -> float:
    """Of successful requests; 0 before the first, as kvcached has it."""
    successful = traffic.outcomes[Outcome.SUCCESSFUL]
    return traffic.successful_latency / successful if successful else 0.0


def idle_details(traffic: ModelTraffic) -> IdleDetails:
    return IdleDetails(
        idle_time_seconds=traffic.idle_seconds(),
        total_requests=traffic.total,
        last_activity_time=traffic.last_activity_wall,
    )


def traffic_endpoints(fleet: Fleet, monitor: TrafficMonitor) -> list[Endpoint]:
    def threshold(model: str) -> float:
        return fleet.models[model].instances[0].config.sleep.idle_threshold_seconds

    async def all_stats(request: Request) -> Response:
        window, history = _window(request), flag(request, HISTORY)
        found = {
            model: Stats.model_validate(stats_of(traffic, window, threshold(model), history))
            for model, traffic in monitor.models.items()
        }
        return JSONResponse(AllTraffic(traffic_stats=found, window_seconds=window).model_dump())

    async def model_stats(request: Request) -> Response:
        window, history = _window(request), flag(request, HISTORY)
        name = request.path_params["model"]
        found = fleet.find(name)
        if found is None:
            raise ModelNotFound(name)
        stats = stats_of(monitor.models[found[0]], window, threshold(found[0]), history)
        answer = ModelStats.model_validate({"model_name": name, **stats})
        return JSONResponse(ModelTrafficAnswer(model_stats=answer, window_seconds=window).model_dump())

    every, one = ("/model/traffic/stats", "/traffic/stats"), "/{model:path}"
    return [
        *_both(every, all_stats, "All models' traffic", AllTraffic, WINDOW, HISTORY),
        *_both([path + one for path in every], model_stats, "One model's traffic", ModelTrafficAnswer, WINDOW, HISTORY),
        *_activity_endpoints(monitor),
    ]


def _activity_endpoints(monitor: TrafficMonitor) -> list[Endpoint]:
    async def idle(request: Request) -> Response:
        threshold = number(request, THRESHOLD, above=-1e-9, at_most=float("inf"))
        found = {
            model: idle_details(traffic)
            for model, traffic in monitor.models.items()
            if traffic.idle_seconds() > threshold
        }
        answer = IdleModels(
            idle_models=list(found),
            idle_threshold_seconds=threshold,
            idle_model_details=found,
            idle_models_count=len(found),
        )
        return JSONResponse(answer.model_dump())

    async def active(request: Request) -> Response:
        threshold = number(request, THRESHOLD, above=-1e-9, at_most=float("inf"))
        window = _window(request)
        found = {
            model: _active_details(traffic, window)
            for model, traffic in monitor.models.items()
            if traffic.total and traffic.idle_seconds() <= threshold
        }
        answer = ActiveModels(
            active_models=list(found),
            idle_threshold_seconds=threshold,
            window_seconds=window,
            active_model_details=found,
            active_models_count=len(found),
        )
        return JSONResponse(answer.model_dump())

    return [
        *_both(("/model/traffic/idle", "/models/idle"), idle, "Models that nobody asks", IdleModels, THRESHOLD),
        *_both(("/model/traffic/active", "/models/active"), active, "Models in use", ActiveModels, THRESHOLD, WINDOW),
    ]


def _active_details(traffic: ModelTraffic, window: int) -> ActiveDetails:
    return ActiveDetails(
        request_rate=traffic.rate(window),
        total_requests=traffic.total,
        avg_response_time=average_response_time(traffic),
        last_activity_time=traffic.last_activity_wall,
        in_flight_requests=traffic.in_flight,
    )


def _window(request: Request) -> int:
    return int(number(request, WINDOW, above=0, at_most=LONGEST_WINDOW))


def _both(
    paths: Iterable[str], handler: Handler, summary: str, answer: type[BaseModel], *query: Query
) -> list[Endpoint]:
    return [Endpoint("GET", path, handler, summary, "traffic", answer, query) for path in paths]
