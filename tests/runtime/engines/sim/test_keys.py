"""Keys guard what the real engines guard, no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.runtime.engines.sim.stage import QUICK, SGLANG, stage

pytestmark = pytest.mark.anyio


async def test_vllm_guards_only_some_prefixes() -> None:
    """401 with a string for an error on /v1, also where no route is; the rest is open."""
    async with stage(replace(QUICK, api_keys=("sekret",))) as sim:
        refused = await sim.complete()
        assert (refused.status_code, refused.json()) == (401, {"error": "Unauthorized"})
        assert (await sim.get("/v1/nope")).status_code == 401
        assert (await sim.get("/v1/models", headers={"x-api-key": "sekret"})).status_code == 401
        assert (await sim.get("/v1/models", headers={"authorization": "bearer sekret"})).status_code == 200
        for path in ("/health", "/metrics", "/version", "/is_sleeping"):
            assert (await sim.get(path)).status_code == 200
        assert (await sim.post("/invocations", {"prompt": "x"})).status_code == 200


async def test_sglang_guards_all_but_health_and_metrics() -> None:
    """401 on the memory calls too."""
    async with stage(replace(SGLANG, api_keys=("sekret",))) as sim:
        assert (await sim.post("/release_memory_occupation", {})).json() == {"error": "Unauthorized"}
        assert (await sim.get("/model_info")).status_code == 401
        assert (await sim.get("/health")).status_code == 200
        assert (await sim.get("/metrics")).status_code == 200
