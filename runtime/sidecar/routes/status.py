"""How the sidecar and its engine are: health, readiness, metrics, and the list of paths."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from runtime.engines.base import Engine, EngineError
from runtime.metrics.text import CONTENT_TYPE
from runtime.sidecar.answer import Json
from runtime.sidecar.jobs import Jobs
from runtime.sidecar.options import PATHS
from runtime.sidecar.own_metrics import OwnMetrics
from runtime.single_flight import SingleFlight


class Status:
    """``page``: the engine's metrics, looked at once for all who ask meanwhile."""

    def __init__(self, engine: Engine, page: SingleFlight[str], own: OwnMetrics, jobs: Jobs) -> None:
        self._engine = engine
        self._page = page
        self._own = own
        self._jobs = jobs

    def routes(self) -> list[Route]:
        get = ["GET"]
        return [
            Route("/", self.paths, methods=get),
            Route("/health", self.health, methods=get),
            Route("/healthz", self.healthz, methods=get),
            Route("/ready", self.ready, methods=get),
            Route("/metrics", self.metrics, methods=get),
            Route("/metrics/", self.metrics, methods=get),  # AIBrix's; a redirect is more than a scraper may follow
            Route("/metrics/runtime", self.own_metrics, methods=get),
        ]

    async def paths(self, _: Request) -> Response:
        return PlainTextResponse(PATHS + "\n")

    async def health(self, _: Request) -> Response:
        """Of the sidecar; the engine is not asked."""
        return Json({"status": "healthy", "service": "runtime"})

    async def healthz(self, _: Request) -> Response:
        return Json({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        if await self._engine.healthy():
            return Json({"status": "ready"})
        return Json({"status": "not ready", "detail": "the engine does not answer"}, 503)

    async def metrics(self, _: Request) -> Response:
        try:
            page = await self._page.get()
        except EngineError as down:
            return Json({"detail": f"Failed to fetch metrics from engine: {down}"}, 502)
        return Response(page.encode(), headers={"content-type": CONTENT_TYPE})

    async def own_metrics(self, _: Request) -> Response:
        up = bool(await self._engine.healthy())
        page = self._own.page(up=up, jobs=self._jobs.all())
        return Response(page, headers={"content-type": CONTENT_TYPE})
