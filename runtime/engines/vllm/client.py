"""vLLM's control API. Sleep endpoints exist only in dev mode (``VLLM_SERVER_DEV_MODE=1``)."""

from __future__ import annotations

import httpx2

from runtime.engines.base import EngineRefused, NotSupported
from runtime.engines.control import CALL_SECONDS, Control
from runtime.engines.gauges import samples, total
from runtime.engines.spec import Capabilities, EngineSpec

NO_DEV_MODE = "it has no sleep endpoints: it was started without VLLM_SERVER_DEV_MODE=1"
RUNNING = ("vllm:num_requests_running", "vllm:num_requests_waiting")


class VllmEngine:
    def __init__(self, spec: EngineSpec, client: httpx2.AsyncClient, wake_seconds: float = CALL_SECONDS) -> None:
        self.capabilities = Capabilities(sleep=True, tells_sleep=True, adapters=True)
        self._control = Control(spec, client)
        self._wake_seconds = wake_seconds

    async def healthy(self) -> bool | None:
        status = await self._control.probe("/health")
        return None if status is None else status == 200

    async def busy(self) -> int | None:
        answer = await self._control.send("GET", "/metrics")
        count = total(answer.text, RUNNING) if answer.status_code == 200 else None
        return None if count is None else int(count)

    async def sleep(self, level: int) -> None:
        # Read from the query alone, a body is ignored. ``wait`` lets a request that slipped in finish.
        path = "/sleep"
        answer = await self._control.send(
            "POST", path, params={"level": str(level), "mode": "wait"}, timeout=CALL_SECONDS
        )
        if answer.status_code == 404:
            raise NotSupported(self._control.name, f"POST {path}", NO_DEV_MODE)
        if answer.status_code >= 400:
            raise EngineRefused(self._control.name, f"POST {path}", answer.status_code, answer.text[:500])

    async def wake(self, level: int | None) -> None:
        level = level or await self._level()
        if level != 2:
            await self._wake_up()
            return
        # The weights are gone: without the reload between the two tags the engine talks gibberish.
        await self._wake_up("weights")
        await self._control.call(
            "POST", "/collective_rpc", json={"method": "reload_weights"}, timeout=self._wake_seconds
        )
        await self._wake_up("kv_cache")
        await self._control.call("POST", "/reset_prefix_cache")

    async def is_asleep(self) -> bool | None:
        answer = await self._control.send("GET", "/is_sleeping")
        if answer.status_code == 404:
            return None  # no dev mode
        if answer.status_code >= 400:
            raise EngineRefused(self._control.name, "GET /is_sleeping", answer.status_code, answer.text[:500])
        return bool(self._control.field(answer, "is_sleeping"))

    async def load_adapter(self, name: str, path: str) -> None:
        await self._control.call("POST", "/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path})

    async def unload_adapter(self, name: str) -> None:
        await self._control.call("POST", "/v1/unload_lora_adapter", json={"lora_name": name})

    async def metrics(self) -> str:
        return (await self._control.call("GET", "/metrics")).text

    async def _wake_up(self, tag: str | None = None) -> None:
        params = {"tags": tag} if tag else None
        await self._control.call("POST", "/wake_up", params=params, timeout=self._wake_seconds)

    async def _level(self) -> int:
        """Ask the metrics: someone else may have put it to sleep."""
        for name, labels, value in samples(await self.metrics()):
            if name == "vllm:engine_sleep_state" and 'sleep_state="discard_all"' in labels and value:
                return 2
        return 1
