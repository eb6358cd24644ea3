"""Whether what was launched is there: how it is asked, and waiting until it is, or is dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Protocol

import httpx2

from controller.config.model import Instance
from runtime.engines.base import EngineError
from runtime.engines.control import PROBE_SECONDS, Control
from runtime.engines.kinds import KINDS
from runtime.engines.spec import CALL_SECONDS

FIRST_POLL_SECONDS = 0.05
LONGEST_POLL_SECONDS = 1.0
POLL_GROWTH = 1.5


class Readiness(Enum):
    READY = "ready"
    DIED = "died"
    LATE = "late"


class Probe(Protocol):
    async def healthy(self) -> bool | None:
        """Whether something answers there as a server of this kind should; None when it does not answer in time."""

    async def recognised(self) -> bool:
        """Whether what answers there is this very one, and not another server on its port."""

    async def is_asleep(self) -> bool | None:
        """None when it cannot be asked."""


class EngineProbe:
    def __init__(self, instance: Instance, client: httpx2.AsyncClient) -> None:
        self._names = {*instance.spec.served_names}
        self._engine = KINDS[instance.spec.kind].connect(instance.spec, client, CALL_SECONDS)
        self._control = Control(instance.spec, client)

    async def healthy(self) -> bool | None:
        return await self._engine.healthy()

    async def recognised(self) -> bool:
        """By the models it lists; every kind has that list, and it is safe to ask for in every state."""
        try:
            answer = await self._control.send("GET", "/v1/models")
        except EngineError:
            return False
        return answer.status_code == 200 and bool(self._names & _model_ids(answer)) and bool(await self.healthy())

    async def is_asleep(self) -> bool | None:
        try:
            return await self._engine.is_asleep()
        except EngineError:
            return None


class ServiceProbe:
    """``answer``: what its ``/health`` says of it."""

    def __init__(self, url: str, answer: Mapping[str, str], client: httpx2.AsyncClient) -> None:
        self._url = url
        self._answer = dict(answer)
        self._client = client

    async def healthy(self) -> bool | None:
        try:
            answer = await self._client.get(f"{self._url}/health", timeout=PROBE_SECONDS)
        except httpx2.TimeoutException:
            return None
        except httpx2.HTTPError:
            return False
        return answer.status_code == 200

    async def recognised(self) -> bool:
        try:
            answer = await self._client.get(f"{self._url}/health", timeout=PROBE_SECONDS)
            return answer.status_code == 200 and bool(answer.json() == self._answer)
        except (httpx2.HTTPError, ValueError):
            return False

    async def is_asleep(self) -> bool | None:
        return None


async def wait_until_ready(
    probe: Probe,
    alive: Callable[[], Awaitable[bool]],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Readiness:
    """Ask, at growing intervals, until it is healthy and its process ``alive``, or dead, or ``seconds`` are over."""
    deadline = clock() + seconds
    interval = FIRST_POLL_SECONDS
    while True:
        healthy = await probe.healthy()
        if not await alive():  # asked last: another server on its port must not make a dead one look ready
            return Readiness.DIED
        if healthy:
            return Readiness.READY
        if clock() >= deadline:
            return Readiness.LATE
        await pause(min(interval, max(0.0, deadline - clock())))
        interval = min(interval * POLL_GROWTH, LONGEST_POLL_SECONDS)


def _model_ids(answer: httpx2.Response) -> set[str]:
    try:
        return {str(model["id"]) for model in answer.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return set()
