"""The simulated engine is spoken to in the dialect it was started with."""

from __future__ import annotations

import httpx2

from runtime.engines.base import Engine
from runtime.engines.sglang.client import SglangEngine
from runtime.engines.sim.command import is_sglang
from runtime.engines.spec import CALL_SECONDS, EngineSpec
from runtime.engines.vllm.client import VllmEngine


def connect(spec: EngineSpec, client: httpx2.AsyncClient, wake_seconds: float = CALL_SECONDS) -> Engine:
    return (SglangEngine if is_sglang(spec.words) else VllmEngine)(spec, client, wake_seconds)
