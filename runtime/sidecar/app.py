"""``create_app(options, settings)``: the one place where the sidecar's objects are made and joined."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.engines.control import open_client
from runtime.engines.kinds import KINDS
from runtime.metrics.scrape import Form, scrape
from runtime.settings import Settings
from runtime.sidecar.answer import Json
from runtime.sidecar.beside import Beside
from runtime.sidecar.jobs import Jobs
from runtime.sidecar.loading import Loader
from runtime.sidecar.options import Options
from runtime.sidecar.own_metrics import Counted, OwnMetrics
from runtime.sidecar.roots import Roots
from runtime.sidecar.routes.aibrix import Aibrix
from runtime.sidecar.routes.kthena import Kthena
from runtime.sidecar.routes.status import Status
from runtime.single_flight import SingleFlight


def create_app(options: Options, settings: Settings) -> Starlette:
    """The sidecar as an ASGI application. Jobs that still run at its end are cancelled, and leave nothing half."""
    spec = options.engine
    client = open_client()
    beside = Beside(spec, client)
    jobs = Jobs()
    loader = Loader(jobs, Roots((*options.roots, options.adapter_dir, options.model_dir)), options.max_lora_rank)
    form = Form(KINDS[spec.kind].metrics, options.vocabulary, options.transform, options.keep_originals)
    own = OwnMetrics(engine=spec.kind, model=spec.model, pod=options.pod)
    page = SingleFlight(lambda: scrape(beside.engine, form, own.scraped))
    routes: list[Route] = [
        *Status(beside.engine, page, own, jobs).routes(),
        *Kthena(beside, loader, settings, options.adapter_dir).routes(),
        *Aibrix(beside, loader, settings, options).routes(),
    ]
    own.know(frozenset(route.path for route in routes))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            try:
                yield
            finally:
                await jobs.close()
                await page.close()

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(Counted, metrics=own)],
        exception_handlers={HTTPException: _not_routed},
    )
    app.router.redirect_slashes = False
    return app


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.scope['path'][:200]}: {error.detail}. GET / lists what there is."
    return Json({"detail": detail}, error.status_code, headers=error.headers)
