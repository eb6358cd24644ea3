"""The simulated engine's web application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from runtime.engines.sim.dialect import Dialect, SglangNames, VllmNames
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.envelope import CommonHeaders, KeyGuard, api_error_handler, http_error_handler
from runtime.engines.sim.errors import ApiError
from runtime.engines.sim.fault_api import FaultApi
from runtime.engines.sim.media_api import MediaApi
from runtime.engines.sim.openai_api import OpenAIApi
from runtime.engines.sim.options import SimOptions
from runtime.engines.sim.pooling_api import PoolingApi
from runtime.engines.sim.responses_api import ResponsesApi
from runtime.engines.sim.sglang_api import SglangApi
from runtime.engines.sim.sglang_forms import SglangChat, SglangCompletion
from runtime.engines.sim.sglang_memory import SglangMemory
from runtime.engines.sim.vllm_api import VllmApi
from runtime.engines.sim.vllm_forms import VllmChat, VllmCompletion
from runtime.engines.sim.vllm_sleep import VllmSleep


def create_app(options: SimOptions, engine: Engine | None = None) -> Starlette:
    """An engine made outside can be looked into; its `exit_process` decides what a death does."""
    engine = engine or Engine(options)
    own, dialect = _own_routes(engine)
    routes = [
        *own,
        *OpenAIApi(engine, dialect).routes(),
        *ResponsesApi(engine, dialect).routes(),
        *PoolingApi(engine, dialect).routes(),
        *MediaApi(engine, dialect).routes(),
        *FaultApi(engine).routes(),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(CommonHeaders, options=options), Middleware(KeyGuard, options=options)],
        exception_handlers={ApiError: api_error_handler(options), HTTPException: http_error_handler},
    )


def _own_routes(engine: Engine) -> tuple[list[Route], Dialect]:
    options, adapters = engine.options, engine.adapters
    if options.dialect == "sglang":
        routes = [*SglangApi(engine).routes(), *SglangMemory(engine).routes()]
        return routes, Dialect(SglangNames(options, adapters), SglangCompletion, SglangChat)
    routes = VllmApi(engine).routes()
    if options.enable_sleep_mode:
        routes += VllmSleep(engine).routes()
    return routes, Dialect(VllmNames(options, adapters), VllmCompletion, VllmChat)
