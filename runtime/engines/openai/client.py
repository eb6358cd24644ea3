"""Any server that speaks OpenAI's API. It can be routed to, and nothing else is asked of it."""

from __future__ import annotations

from typing import NoReturn

import httpx2

from runtime.engines.base import NotSupported
from runtime.engines.control import CALL_SECONDS, Control
from runtime.engines.spec import Capabilities, EngineSpec


class OpenAIEngine:
    def __init__(self, spec: EngineSpec, client: httpx2.AsyncClient, wake_seconds: float = CALL_SECONDS) -> None:
        self.capabilities = Capabilities(sleep=False, tells_sleep=True, adapters=False)
        self._control = Control(spec, client)

    async def healthy(self) -> bool | None:
        status = await self._control.probe("/v1/models")  # llama.cpp's and others' servers have no /health
        return None if status is None else 0 < status < 500

    async def busy(self) -> int | None:
        return None

    async def sleep(self, level: int) -> None:
        self._cannot("sleep")

    async def wake(self, level: int | None) -> None:
        self._cannot("wake")

    async def is_asleep(self) -> bool | None:
        return False

    async def load_adapter(self, name: str, path: str) -> None:
        self._cannot("load an adapter")

    async def unload_adapter(self, name: str) -> None:
        self._cannot("unload an adapter")

    async def metrics(self) -> str:
        return (await self._control.call("GET", "/metrics")).text

    def _cannot(self, what: str) -> NoReturn:
        raise NotSupported(self._control.name, what, "an engine of kind 'openai' cannot")
