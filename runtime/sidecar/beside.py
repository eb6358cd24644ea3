"""The engine beside this sidecar, spoken to with its own key or with the one that a caller brings."""

from __future__ import annotations

from dataclasses import replace

import httpx2
from starlette.requests import Request

from runtime.engines.base import Engine
from runtime.engines.control import Control
from runtime.engines.kinds import KINDS
from runtime.engines.spec import EngineSpec


class Beside:
    """``engine``: its control API. ``control``: single calls to it."""

    def __init__(self, spec: EngineSpec, client: httpx2.AsyncClient) -> None:
        self.spec = spec
        self._client = client
        self.engine: Engine = KINDS[spec.kind].connect(spec, client, spec.call_seconds)
        self.control = Control(spec, client)

    def asked_by(self, request: Request) -> Beside:
        """A caller's ``Authorization: Bearer`` goes on to the engine, as AIBrix's controller means it to."""
        return self.with_key(bearer(request.headers.get("authorization")))

    def with_key(self, key: str | None) -> Beside:
        """Itself without one."""
        return Beside(replace(self.spec, api_key=key), self._client) if key else self

    async def models(self) -> httpx2.Response:
        """``GET /v1/models`` as the engine answers it."""
        return await self.control.send("GET", "/v1/models", timeout=self.spec.call_seconds)


def bearer(header: str | None) -> str | None:
    """The token of an ``Authorization`` header; None when there is none, or it is of another scheme."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
