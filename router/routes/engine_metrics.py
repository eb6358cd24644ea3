"""The engines' metrics, as one page for Prometheus."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from router.engine_metrics import EngineMetrics
from router.metrics import CONTENT_TYPE
from router.routes.endpoint import Endpoint


def engine_metrics_endpoints(metrics: EngineMetrics) -> list[Endpoint]:
    async def page(_: Request) -> Response:
        return Response((await metrics.page()).encode(), headers={"content-type": CONTENT_TYPE})

    return [Endpoint("GET", "/metrics/engines", page, "Prometheus metrics of all engines, standard names", "documents")]
