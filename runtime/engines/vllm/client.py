"""vLLM's control API. Sleep endpoints exist only in dev mode (``VLLM_SERVER_DEV_MODE=1``)."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from runtime.engines import adapter_calls
from runtime.engines.base import AdapterSeen, EngineRefused, EngineTimeout, EngineUnreachable, NotSupported, Sight
from runtime.engines.control import Control
from runtime.engines.gauges import samples, total
from runtime.engines.spec import CALL_SECONDS, EngineSpec
from runtime.engines.vllm.command import capabilities

NO_DEV_MODE = "it has no sleep endpoints: it was started without VLLM_SERVER_DEV_MODE=1"
NO_ADAPTERS = (
    "it has no adapter endpoints: it was started without --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
)
RUNNING = ("vllm:num_requests_running", "vllm:num_requests_waiting")

WORK = ("vllm:iteration_tokens_total_count", "vllm:generation_tokens_total", "vllm:prompt_tokens_total")


class VllmEngine:
    def __init__(self, spec: EngineSpec, client: httpx2.AsyncClient, wake_seconds: float = CALL_SECONDS) -> None:
        self.capabilities = capabilities(spec)
        self._control = Control(spec, client)
        self._wake_seconds = wake_seconds
        self._dev_mode = True  # until it says otherwise

    async def healthy(self) -> bool | None:
        status = await self._control.probe("/health")
        return None if status is None else status == 200

    async def busy(self) -> int | None:
        answer = await self._control.send("GET", self._control.metrics_path)
        count = total(answer.text, RUNNING) if answer.status_code == 200 else None
        return None if count is None else int(count)

    async def pulse(self) -> float | None:
        answer = await self._control.send("GET", self._control.metrics_path)
        return total(answer.text, WORK) if answer.status_code == 200 else None

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
        path = "/is_sleeping"
        answer = await self._control.look(path)
        asleep = answer.field("is_sleeping") if answer.status < 400 else None
        if answer.status >= 400 and answer.status != 404:
            problem = answer.body[:500].decode(errors="replace")
            raise EngineRefused(self._control.name, f"GET {path}", answer.status, problem)
        self._dev_mode = isinstance(asleep, bool)  # or it is no vLLM, and answers everything with something
        return asleep if isinstance(asleep, bool) else None

    async def look(self) -> Sight:
        # Whether it sleeps is asked of the engine behind the server: what can tell that is up.
        if self._dev_mode:
            try:
                asleep = await self.is_asleep()
            except EngineUnreachable:
                return Sight(healthy=False)
            except EngineTimeout:
                return Sight(healthy=None)
            except EngineRefused:
                asleep = None
            if asleep is not None:
                return Sight(healthy=True, asleep=asleep)
        return Sight(await self.healthy())

    def adapter_model(self, name: str) -> str:
        return name

    async def bases(self) -> tuple[str, ...]:
        return await adapter_calls.bases(self._control)

    async def adapters(self) -> Mapping[str, AdapterSeen]:
        return await adapter_calls.seen(self._control)

    async def load_adapter(self, name: str, path: str, *, replace: bool = False) -> str:
        body = {"lora_name": name, "lora_path": path} | ({"load_inplace": True} if replace else {})
        try:
            return await adapter_calls.load(self._control, "/v1/load_lora_adapter", body)
        except EngineRefused as refused:
            raise _without_endpoints(refused) from None

    async def unload_adapter(self, name: str) -> str:
        try:
            return await adapter_calls.unload(self._control, "/v1/unload_lora_adapter", name)
        except EngineRefused as refused:
            raise _without_endpoints(refused) from None

    async def metrics(self) -> str:
        return await self._control.metrics()

    async def _wake_up(self, tag: str | None = None) -> None:
        params = {"tags": tag} if tag else None
        await self._control.call("POST", "/wake_up", params=params, timeout=self._wake_seconds)

    async def _level(self) -> int:
        """Ask the metrics: someone else may have put it to sleep."""
        for name, labels, value in samples(await self.metrics()):
            if name == "vllm:engine_sleep_state" and 'sleep_state="discard_all"' in labels and value:
                return 2
        return 1


def _without_endpoints(refused: EngineRefused) -> EngineRefused | NotSupported:
    if refused.status == 404 and refused.reason == "Not Found":
        return NotSupported(refused.engine, refused.operation, NO_ADAPTERS)
    return refused
