"""Any server that speaks OpenAI's API. It can be routed to, and nothing else is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import httpx2

from runtime.engines import adapter_calls
from runtime.engines.base import AdapterSeen, NotSupported, Sight
from runtime.engines.control import Control
from runtime.engines.openai.command import capabilities
from runtime.engines.spec import CALL_SECONDS, EngineSpec


class OpenAIEngine:
    def __init__(self, spec: EngineSpec, client: httpx2.AsyncClient, wake_seconds: float = CALL_SECONDS) -> None:
        self.capabilities = capabilities(spec)
        self._control = Control(spec, client)

    async def healthy(self) -> bool | None:
        status = await self._control.probe("/v1/models")  # llama.cpp's and others' servers have no /health
        return None if status is None else 0 < status < 500

    async def busy(self) -> int | None:
        return None

    async def pulse(self) -> float | None:
        return None

    async def sleep(self, level: int) -> None:
        self._cannot("sleep")

    async def wake(self, level: int | None) -> None:
        self._cannot("wake")

    async def is_asleep(self) -> bool | None:
        return False

    async def look(self) -> Sight:
        return Sight(await self.healthy(), asleep=False)

    def adapter_model(self, name: str) -> str:
        return name

    async def bases(self) -> tuple[str, ...]:
        return await adapter_calls.bases(self._control)

    async def adapters(self) -> Mapping[str, AdapterSeen]:
        self._cannot("list adapters")

    async def load_adapter(self, name: str, path: str, *, replace: bool = False) -> str:
        self._cannot("load an adapter")

    async def unload_adapter(self, name: str) -> str:
        self._cannot("unload an adapter")

    async def metrics(self) -> str:
        return await self._control.metrics()

    def _cannot(self, what: str) -> NoReturn:
        raise NotSupported(self._control.name, what, "an engine of kind 'openai' cannot")
