"""/sim/faults: break the engine while it runs. No real engine has this route."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.engines.sim.body import read_json
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.form import JsonResponse


class FaultApi:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            Route("/sim/faults", self.show, methods=["GET"]),
            Route("/sim/faults", self.add, methods=["POST"]),
            Route("/sim/faults", self.clear, methods=["DELETE"]),
        ]

    async def show(self, request: Request) -> Response:
        return JsonResponse(self._engine.faults.as_json())

    async def add(self, request: Request) -> Response:
        """Set faults; a crash that names no tokens happens now."""
        wanted = await read_json(request, strict_type=False)
        self._engine.faults.add(wanted)
        crash = self._engine.faults.active("crash")
        if "crash" in wanted and crash is not None and crash.tokens is None:
            self._engine.crash("fault: crash")
        return JsonResponse(self._engine.faults.as_json())

    async def clear(self, request: Request) -> Response:
        self._engine.faults.clear()
        return JsonResponse(self._engine.faults.as_json())
