"""vLLM's development routes: sleep, wake, pause, and what goes with them."""

from __future__ import annotations

import asyncio
import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.engines.sim.answer import refusal
from runtime.engines.sim.body import read_optional_json
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.errors import ApiError, invalid
from runtime.engines.sim.form import JsonResponse

logger = logging.getLogger(__name__)

_MODES = ("abort", "wait", "keep")
_LATE = 3600.0


class VllmSleep:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._options = engine.options

    def routes(self) -> list[Route]:
        get, post = ["GET"], ["POST"]
        return [
            Route("/sleep", self.sleep, methods=post),
            Route("/wake_up", self.wake_up, methods=post),
            Route("/is_sleeping", self.is_sleeping, methods=get),
            Route("/pause", self.pause, methods=post),
            Route("/resume", self.resume, methods=post),
            Route("/is_paused", self.is_paused, methods=get),
            Route("/reset_prefix_cache", self.reset_prefix_cache, methods=post),
            Route("/collective_rpc", self.collective_rpc, methods=post),
        ]

    def _mode(self, request: Request) -> str:
        mode = request.query_params.get("mode", "abort")
        if mode not in _MODES:
            raise invalid("literal_error", "query.mode", "Input should be abort, wait or keep")
        return mode

    def _level(self, request: Request) -> int:
        """From the query only; a body is ignored."""
        given = request.query_params.get("level", "1")
        if not given.lstrip("-").isdigit():
            raise invalid("int_parsing", "query.level", "Input should be a valid integer")
        level = int(given)
        if level > 2:
            raise invalid("less_than_equal", "query.level", "Input should be less than or equal to 2")
        if level < 0:
            raise invalid("greater_than_equal", "query.level", "Input should be greater than or equal to 0")
        return level

    async def _quiet(self, mode: str, reason: str) -> None:
        """Let nothing new in, and end, finish or freeze what runs."""
        engine = self._engine
        engine.gate.close(reason)
        if mode == "keep":
            engine.scheduler.freeze()
            return
        if mode == "abort":
            engine.scheduler.end_all("abort")
        await engine.scheduler.idle()

    async def sleep(self, request: Request) -> Response:
        engine = self._engine
        engine.page.sim.sleep_calls.inc()
        level, mode = self._level(request), self._mode(request)
        fault = engine.faults.take("fail_sleep")
        if fault is not None:
            return refusal(fault, 500)
        async with engine.moving:
            await self._quiet(mode, "asleep")
            if level > 0:
                await asyncio.sleep(self._options.sleep_seconds)
                engine.prefixes.clear()
            engine.memory.sleep(level)
        logger.info("asleep at level %d, %.1f GiB", level, engine.memory.gib)
        return JsonResponse({"status": "sleeping", "level": level})

    async def wake_up(self, request: Request) -> Response:
        engine = self._engine
        engine.page.sim.wake_calls.inc()
        tags = request.query_params.getlist("tags") or None
        fault = engine.faults.take("fail_wake")
        if fault is not None:
            return refusal(fault, 500)
        async with engine.moving:
            slow = engine.faults.take("slow_wake")
            if slow is not None:
                await asyncio.sleep(slow.seconds or 0.0)
            if "weights" in engine.memory.absent and (tags is None or "weights" in tags):
                await asyncio.sleep(self._options.wake_seconds)
            awake = engine.memory.wake(tags)
            if awake:
                self._open()
        late = engine.faults.take("wake_ok_but_timeout")
        if late is not None:
            await asyncio.sleep(_LATE if late.seconds is None else late.seconds)
        return JsonResponse({"status": "awake" if awake else "sleeping", "tags": tags})

    def _open(self) -> None:
        logger.info("awake, %.1f GiB", self._engine.memory.gib)
        self._engine.scheduler.thaw()
        self._engine.gate.open("asleep")
        self._engine.gate.open("paused")

    async def is_sleeping(self, request: Request) -> Response:
        """True also while merely paused, as the real one."""
        gate = self._engine.gate
        return JsonResponse({"is_sleeping": gate.closed_for("asleep") or gate.closed_for("paused")})

    async def pause(self, request: Request) -> Response:
        await self._quiet(self._mode(request), "paused")
        return JsonResponse({"status": "paused"})

    async def resume(self, request: Request) -> Response:
        """Ends a pause; memory that is gone stays gone."""
        self._engine.gate.open("paused")
        if not self._engine.asleep:
            self._engine.scheduler.thaw()
        return JsonResponse({"status": "resumed"})

    async def is_paused(self, request: Request) -> Response:
        gate = self._engine.gate
        return JsonResponse({"is_paused": gate.closed_for("paused") or gate.closed_for("asleep")})

    async def reset_prefix_cache(self, request: Request) -> Response:
        self._engine.prefixes.clear()
        return JsonResponse({"success": True})

    async def collective_rpc(self, request: Request) -> Response:
        method = (await read_optional_json(request)).get("method")
        if not method:
            raise ApiError(400, "Missing 'method' in request body", "Bad Request")
        if method == "reload_weights":
            try:
                self._engine.memory.reload()
            except RuntimeError as error:
                raise ApiError(500, str(error), "InternalServerError") from error
        return JsonResponse({"results": [None]})
