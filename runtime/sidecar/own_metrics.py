"""The sidecar's own metrics, of its engine's state and of what was asked of it."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.metrics.scrape import RESULTS
from runtime.sidecar.jobs import Job, Status

BUCKETS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
OTHER = "other"


class OwnMetrics:
    def __init__(self, *, engine: str, model: str, pod: str) -> None:
        own = self._registry = CollectorRegistry(auto_describe=False)
        self._paths: frozenset[str] = frozenset()
        info = Gauge("torpor_runtime_info", "What it stands beside.", ("engine", "model", "pod"), registry=own)
        info.labels(engine, model, pod).set(1)
        self._up = Gauge("torpor_runtime_engine_up", "1 when the engine answers.", registry=own)
        self._scrapes = Counter(
            "torpor_runtime_scrapes", "Looks at the engine's metrics, by result.", ("result",), registry=own
        )
        for result in RESULTS:
            self._scrapes.labels(result)
        self._jobs = Gauge("torpor_runtime_jobs", "Downloads and loads, by state.", ("kind", "status"), registry=own)
        self._requests = Counter("torpor_runtime_requests", "Requests.", ("method", "path", "status"), registry=own)
        self._seconds = Histogram(
            "torpor_runtime_request_seconds",
            "From a request to its answer.",
            ("method", "path"),
            buckets=BUCKETS,
            registry=own,
        )
        ProcessCollector(registry=own)

    def know(self, paths: frozenset[str]) -> None:
        """The paths that have a series of their own."""
        self._paths = paths

    def scraped(self, result: str) -> None:
        self._scrapes.labels(result).inc()

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        """Labels are of a known few: a client must not be able to make series."""
        method = method if method in ("GET", "HEAD", "POST", "DELETE") else OTHER
        path = path if path in self._paths else "/v1/jobs/{id}" if path.startswith("/v1/jobs/") else OTHER
        self._requests.labels(method, path, str(status)).inc()
        self._seconds.labels(method, path).observe(seconds)

    def page(self, *, up: bool, jobs: Iterable[Job]) -> bytes:
        self._up.set(up)
        self._jobs.clear()
        for job in jobs:
            self._jobs.labels(job.kind, str(Status(job.status))).inc()
        return generate_latest(self._registry)


class Counted:
    """Pure ASGI: counts each request by its path and status."""

    def __init__(self, app: ASGIApp, metrics: OwnMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._metrics.answered(scope["method"], scope["path"], status, time.monotonic() - began)
