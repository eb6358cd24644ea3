"""SGLang's control API.

Its ``/health`` generates a token and is never asked. It dies when told to release memory while busy, and when told to
resume twice; it cannot say whether it sleeps. A second release is harmless, which is how a doubt is settled.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from runtime.engines import adapter_calls
from runtime.engines.base import AdapterSeen, EngineRefused, NotSupported, Sight
from runtime.engines.control import Control
from runtime.engines.gauges import total
from runtime.engines.sglang.command import capabilities
from runtime.engines.spec import CALL_SECONDS, EngineSpec

PROBES = ("/ready", "/model_info", "/get_model_info")  # newest first; none of them touches the scheduler
INFO = ("/model_info", "/get_model_info")
RUNNING = ("sglang:num_running_reqs", "sglang:num_queue_reqs")

WORK = ("sglang:generation_tokens_total", "sglang:prompt_tokens_total", "sglang:num_used_tokens")


class SglangEngine:
    def __init__(self, spec: EngineSpec, client: httpx2.AsyncClient, wake_seconds: float = CALL_SECONDS) -> None:
        self.capabilities = capabilities(spec)
        self._control = Control(spec, client)
        self._model = spec.model
        self._name = spec.engine_name
        self._wake_seconds = wake_seconds
        self._keeps_weights = 1 in self.capabilities.levels
        self._probes: tuple[str, ...] = PROBES

    async def healthy(self) -> bool | None:
        for path in self._probes:
            status = await self._control.probe(path)
            if status is None:
                return None
            if status == 200:
                self._probes = (path, *(other for other in PROBES if other != path))  # next time the first will do
            if status != 404:
                return status == 200
        return False

    async def busy(self) -> int | None:
        answer = await self._control.send("GET", "/v1/loads")
        if answer.status_code == 200:
            ranks = self._control.field(answer, "loads")
            return sum(int(rank.get("num_running_reqs", 0)) + int(rank.get("num_waiting_reqs", 0)) for rank in ranks)
        page = await self._control.send("GET", self._control.metrics_path)  # older ones lack /v1/loads
        count = total(page.text, RUNNING) if page.status_code == 200 else None
        return None if count is None else int(count)

    async def pulse(self) -> float | None:
        answer = await self._control.send("GET", self._control.metrics_path)  # 404 without --enable-metrics
        return total(answer.text, WORK) if answer.status_code == 200 else None

    async def sleep(self, level: int) -> None:
        # There is one depth of sleep here: what becomes of the weights was decided when the engine was started.
        await self._control.call("POST", "/release_memory_occupation", json={})

    async def wake(self, level: int | None) -> None:
        await self._control.call("POST", "/resume_memory_occupation", json={}, timeout=self._wake_seconds)
        if self._keeps_weights:
            return
        path = "/update_weights_from_disk"
        answer = await self._control.call("POST", path, json={"model_path": self._model}, timeout=self._wake_seconds)
        if self._control.field(answer, "success") is not True:
            raise EngineRefused(self._control.name, f"POST {path}", answer.status_code, answer.text[:500])
        await self._control.call("POST", "/flush_cache")

    async def is_asleep(self) -> bool | None:
        return None

    async def look(self) -> Sight:
        return Sight(await self.healthy())

    def adapter_model(self, name: str) -> str:
        return f"{self._name}:{name}"  # under its bare name the base model answers, and says nothing

    async def bases(self) -> tuple[str, ...]:
        """Its list has the served name alone; the path is told elsewhere."""
        named = await adapter_calls.bases(self._control)
        for path in INFO:
            answer = await self._control.send("GET", path)
            if answer.status_code == 200:
                return tuple(dict.fromkeys((*named, str(self._control.field(answer, "model_path")))))
        return ()  # one name that may be a nickname is nothing to compare with

    async def adapters(self) -> Mapping[str, AdapterSeen]:
        return await adapter_calls.seen(self._control)

    async def load_adapter(self, name: str, path: str, *, replace: bool = False) -> str:
        if replace:
            raise NotSupported(self._control.name, "replace an adapter", "SGLang refuses a name that is loaded")
        body = {"lora_name": name, "lora_path": path}
        return await adapter_calls.load(self._control, "/load_lora_adapter", body)

    async def unload_adapter(self, name: str) -> str:
        return await adapter_calls.unload(self._control, "/unload_lora_adapter", name)

    async def metrics(self) -> str:
        return await self._control.metrics()
