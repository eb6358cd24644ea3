"""SGLang's own routes beside the generating ones: health, models, loads, adapters, metrics."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.engines.sim.adapters import NoAdapter, RankTooHigh, inspect
from runtime.engines.sim.answer import load_fault, refusal
from runtime.engines.sim.body import read_json
from runtime.engines.sim.departure import Departure
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.errors import ApiError, ClientLeft
from runtime.engines.sim.form import JsonResponse
from runtime.engines.sim.generation import Generation, Order
from runtime.engines.sim.openai_api import model_card


class SglangApi:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._options = engine.options

    def routes(self) -> list[Route]:
        get, post = ["GET"], ["POST"]
        return [
            Route("/health", self.health, methods=get),
            Route("/health_generate", self.health_generate, methods=get),
            Route("/ready", self.ready, methods=get),
            Route("/model_info", self.model_info, methods=get),
            Route("/get_model_info", self.model_info, methods=get),
            Route("/server_info", self.server_info, methods=get),
            Route("/get_server_info", self.server_info, methods=get),
            Route("/v1/loads", self.loads, methods=get),
            Route("/v1/models", self.models, methods=get),
            Route("/metrics", self.metrics, methods=get),
            Route("/load_lora_adapter", self.load_adapter, methods=post),
            Route("/unload_lora_adapter", self.unload_adapter, methods=post),
        ]

    async def health(self, request: Request) -> Response:
        if self._engine.gate.closed_for("paused"):
            return Response(status_code=503)
        return await self.health_generate(request)

    async def health_generate(self, request: Request) -> Response:
        """Runs a generation of one token, which counts as running, unless something else runs."""
        engine = self._engine
        fault = engine.faults.take("fail_health")
        if fault is not None:
            return refusal(fault, 503)
        try:
            async with Departure(request.receive):
                if engine.memory.absent or engine.gate.closed_for("paused"):
                    return await self._no_health()
                await self._one_token()
                return Response()
        except ClientLeft:
            return Response(status_code=499)

    async def _no_health(self) -> Response:
        """A generation that never comes back."""
        engine = self._engine
        if engine.memory.absent:
            engine.page.sim.while_asleep.inc()
            if self._options.strict_sleep:
                engine.crash("a health check reached the engine while its memory was released")
        await asyncio.sleep(self._options.health_timeout)
        return Response(status_code=503)

    async def _one_token(self) -> None:
        engine = self._engine
        await engine.gate.wait()
        if engine.scheduler.size:
            await asyncio.sleep(self._options.health_seconds)
            return
        order = Order("HEALTH_CHECK", self._options.name, self._options.model, "", 1, 1)
        generation = Generation(order, asyncio.get_running_loop().time())
        try:
            await engine.scheduler.admit(generation)
            await asyncio.sleep(self._options.health_seconds)
        finally:
            engine.scheduler.leave(generation)

    async def ready(self, request: Request) -> Response:
        return Response()

    async def model_info(self, request: Request) -> Response:
        info = {
            "model_path": self._options.model,
            "tokenizer_path": self._options.model,
            "is_generation": True,
            "weight_version": "default",
            "served_model_name": self._options.name,
        }
        return JsonResponse(info)

    async def server_info(self, request: Request) -> Response:
        options = self._options
        info = {
            "model_path": options.model,
            "served_model_name": options.name,
            "enable_lora": options.enable_lora,
            "max_running_requests": options.max_num_seqs,
            "max_total_num_tokens": options.kv_cache_tokens,
            "context_length": options.max_model_len,
            "version": "0.5.23",
        }
        return JsonResponse(info)

    async def loads(self, request: Request) -> Response:
        """Asks no model, so it answers while memory is released too."""
        scheduler = self._engine.scheduler
        used = sum(one.order.prompt_tokens + one.sent for one in scheduler.running)
        load = {
            "dp_rank": 0,
            "num_running_reqs": len(scheduler.running),
            "num_waiting_reqs": len(scheduler.waiting),
            "num_used_tokens": used,
            "max_total_num_tokens": self._options.kv_cache_tokens,
            "token_usage": used / self._options.kv_cache_tokens,
        }
        stamp = {"timestamp": time.time(), "version": "0.5.23", "dp_rank_count": 1}
        return JsonResponse(stamp | {"loads": [load]})

    async def models(self, request: Request) -> Response:
        options = self._options
        cards = [model_card(name, name, None, options.max_model_len, "sglang") for name in options.served_names] + [
            model_card(one.name, one.path, options.name, None, "sglang") for one in self._engine.adapters.all()
        ]
        return JsonResponse({"object": "list", "data": cards})

    async def metrics(self, request: Request) -> Response:
        page = self._engine.page
        return Response(page.render(), headers={"content-type": page.content_type})

    def _adapters_answer(self, error: str = "", *, listed: bool = True) -> Response:
        loaded = {one.name: one.path for one in self._engine.adapters.all()} if listed else None
        content: dict[str, Any] = {
            "rid": None,
            "http_worker_ipc": None,
            "success": not error,
            "error_message": error,
            "loaded_adapters": loaded,
        }
        return JsonResponse(content, 400 if error else 200)

    async def load_adapter(self, request: Request) -> Response:
        fault = await load_fault(self._engine)
        if fault is not None:
            return refusal(fault, 500)
        body = await read_json(request, "lora_name", "lora_path")
        name, path = str(body["lora_name"]), str(body["lora_path"])
        self._need_lora()
        if name in self._engine.adapters:
            return self._adapters_answer(f"Failed to load LoRA adapter {name} because it is already loaded")
        try:
            inspect(path, self._options.max_lora_rank)
        except NoAdapter:
            return self._adapters_answer(
                f"Repo id must be in the form 'repo_name' or 'namespace/repo_name': '{path}'. "
                "Use `repo_type` argument if needed."
            )
        except RankTooHigh as error:
            return self._adapters_answer(
                f"LoRA adapter {name} with rank {error.rank} is incompatible with the current LoRA memory pool "
                "configuration. Please ensure that the LoRA adapter's rank is within the configured `--max-lora-rank` "
                "and that the target modules are included in `--lora-target-modules`."
            )
        self._engine.adapters.put(name, path)
        return self._adapters_answer()

    async def unload_adapter(self, request: Request) -> Response:
        fault = self._engine.faults.take("fail_unload")
        if fault is not None:
            return refusal(fault, 500)
        name = str((await read_json(request, "lora_name"))["lora_name"])
        self._need_lora()
        if name not in self._engine.adapters:
            known = ", ".join(repr(one.name) for one in self._engine.adapters.all())
            error = f"LoRA with name {name} does not exist. Loaded LoRAs: odict_keys([{known}])"
            return self._adapters_answer(error, listed=False)
        self._engine.adapters.drop(name)
        return self._adapters_answer()

    def _need_lora(self) -> None:
        if not self._options.enable_lora:
            raise ApiError(400, "LoRA is not enabled. Please set `--enable-lora` to enable LoRA.")
