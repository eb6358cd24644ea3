"""vLLM's own routes beside the generating ones: health, models, adapters, metrics."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.engines.sim.answer import load_fault, refusal
from runtime.engines.sim.body import read_json
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.errors import invalid
from runtime.engines.sim.form import JsonResponse
from runtime.engines.sim.openai_api import model_card


class VllmApi:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._options = engine.options

    def routes(self) -> list[Route]:
        get, post = ["GET"], ["POST"]
        routes = [
            Route("/health", self.health, methods=get),
            Route("/ping", self.health, methods=["GET", "POST"]),
            Route("/version", self.version, methods=get),
            Route("/load", self.load, methods=get),
            Route("/v1/models", self.models, methods=get),
            Route("/metrics", self.metrics, methods=get),
        ]
        if self._options.enable_lora:
            routes.append(Route("/v1/load_lora_adapter", self.load_adapter, methods=post))
            routes.append(Route("/v1/unload_lora_adapter", self.unload_adapter, methods=post))
        return routes

    async def health(self, request: Request) -> Response:
        """200 also while asleep."""
        fault = self._engine.faults.take("fail_health")
        return Response() if fault is None else refusal(fault, 503)

    async def version(self, request: Request) -> Response:
        return JsonResponse({"version": "0.32.0"})

    async def load(self, request: Request) -> Response:
        tracked = self._options.enable_server_load_tracking
        return JsonResponse({"server_load": self._engine.scheduler.size if tracked else 0})

    async def models(self, request: Request) -> Response:
        options = self._options
        cards = [self._card(name, options.model, None, options.max_model_len) for name in options.served_names] + [
            self._card(one.name, one.path, options.name, None) for one in self._engine.adapters.all()
        ]
        return JsonResponse({"object": "list", "data": cards})

    def _card(self, name: str, root: str, parent: str | None, length: int | None) -> dict[str, Any]:
        permission = {
            "id": f"modelperm-{uuid4().hex[:16]}",
            "object": "model_permission",
            "created": int(time.time()),
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        return model_card(name, root, parent, length, "vllm") | {"permission": [permission]}

    async def metrics(self, request: Request) -> Response:
        page = self._engine.page
        return Response(page.render(), headers={"content-type": page.content_type})

    async def load_adapter(self, request: Request) -> Response:
        fault = await load_fault(self._engine)
        if fault is not None:
            return refusal(fault, 500)
        body = await read_json(request, "lora_name", "lora_path")
        name, path = body["lora_name"], body["lora_path"]
        for field, value in (("lora_name", name), ("lora_path", path)):
            if not isinstance(value, str):
                raise invalid("string_type", f"body.{field}", "Input should be a valid string")
        self._engine.adapters.load(name, path, inplace=bool(body.get("load_inplace")))
        return Response(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload_adapter(self, request: Request) -> Response:
        fault = self._engine.faults.take("fail_unload")
        if fault is not None:
            return refusal(fault, 500)
        name = (await read_json(request, "lora_name"))["lora_name"]
        self._engine.adapters.unload(str(name))
        return Response(f"Success: LoRA adapter '{name}' removed successfully.")
