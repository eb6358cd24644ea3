"""SGLang's routes that release and resume memory: strict, and deadly when misused."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.engines.sim.answer import refusal
from runtime.engines.sim.body import read_optional_json
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.errors import invalid
from runtime.engines.sim.form import JsonResponse
from runtime.engines.sim.memory import SGLANG_TAGS

logger = logging.getLogger(__name__)

_LATE = 3600.0
_BUSY = "AssertionError: release_memory_occupation should be called only when server is idle."


class SglangMemory:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._options = engine.options

    def routes(self) -> list[Route]:
        post = ["POST"]
        return [
            Route("/release_memory_occupation", self.release, methods=["GET", "POST"]),
            Route("/resume_memory_occupation", self.resume, methods=["GET", "POST"]),
            Route("/update_weights_from_disk", self.update_weights, methods=post),
            Route("/flush_cache", self.flush_cache, methods=["GET", "POST"]),
            Route("/pause_generation", self.pause, methods=post),
            Route("/continue_generation", self.carry_on, methods=post),
        ]

    async def _tags(self, request: Request) -> frozenset[str]:
        tags = (await read_optional_json(request)).get("tags")
        if tags is None:
            return SGLANG_TAGS
        if not isinstance(tags, list) or not SGLANG_TAGS.issuperset(map(str, tags)):
            raise invalid("value_error", "body.tags", f"Known tags: {sorted(SGLANG_TAGS)}".replace("'", ""))
        return frozenset(map(str, tags))

    async def release(self, request: Request) -> Response:
        engine = self._engine
        engine.page.sim.sleep_calls.inc()
        tags = await self._tags(request)
        fault = engine.faults.take("fail_sleep")
        if fault is not None:
            return refusal(fault, 500)
        async with engine.moving:
            if engine.scheduler.size:
                engine.crash(_BUSY)
            if engine.memory.release(tags):
                engine.gate.close("moving")
                try:
                    await asyncio.sleep(self._options.sleep_seconds)
                finally:
                    engine.gate.open("moving")
                engine.prefixes.clear()
        logger.info("memory released, %.1f GiB", engine.memory.gib)
        return JsonResponse(None)

    async def resume(self, request: Request) -> Response:
        engine = self._engine
        engine.page.sim.wake_calls.inc()
        tags = await self._tags(request)
        fault = engine.faults.take("fail_wake")
        if fault is not None:
            return refusal(fault, 500)
        async with engine.moving:
            missing = sorted(tags - engine.memory.absent, reverse=True)
            if missing:
                first = "kv_cache" if "kv_cache" in missing else missing[0]
                engine.crash(f"KeyError: '{first}'")
            slow = engine.faults.take("slow_wake")
            engine.gate.close("moving")
            try:
                extra = (slow.seconds or 0.0) if slow is not None else 0.0
                await asyncio.sleep(extra + (self._options.wake_seconds if "weights" in tags else 0.0))
                engine.memory.resume(tags)
            finally:
                engine.gate.open("moving")
        late = engine.faults.take("wake_ok_but_timeout")
        if late is not None:
            await asyncio.sleep(_LATE if late.seconds is None else late.seconds)
        logger.info("memory resumed, %.1f GiB", engine.memory.gib)
        return JsonResponse(None)

    async def update_weights(self, request: Request) -> Response:
        body = await read_optional_json(request)
        path = body.get("model_path")
        if not path:
            raise invalid("missing", "body.model_path", "Field required")
        try:
            self._engine.memory.reload()
        except RuntimeError:
            return self._updated(False, "Failed to update weights: the memory of the weights is released.")
        self._engine.prefixes.clear()
        return self._updated(True, "Succeeded to update model weights.")

    def _updated(self, success: bool, message: str) -> Response:
        content: dict[str, Any] = {"success": success, "message": message, "num_paused_requests": 0}
        return JsonResponse(content, 200 if success else 400)

    async def flush_cache(self, request: Request) -> Response:
        if self._engine.scheduler.size:
            return Response("Flush cache failed.\n", 400, media_type="text/plain")
        self._engine.prefixes.clear()
        self._engine.page.cache_cleared()
        return Response("Cache flushed.\n", media_type="text/plain")

    async def pause(self, request: Request) -> Response:
        mode = (await read_optional_json(request)).get("mode", "abort")
        engine = self._engine
        engine.gate.close("paused")
        if mode == "abort":
            engine.scheduler.end_all("abort")
        else:
            engine.scheduler.freeze()
        return JsonResponse({"message": "Generation paused successfully.", "status": "ok"})

    async def carry_on(self, request: Request) -> Response:
        self._engine.scheduler.thaw()
        self._engine.gate.open("paused")
        return JsonResponse({"message": "Generation continued successfully.", "status": "ok"})
