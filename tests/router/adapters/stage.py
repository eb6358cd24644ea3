"""Adapters on a whole gateway: folders that hold one, engines that take one, and waiting for them.

async with whole(tmp_path, Spec("base", LORA)) as gateway:
    await put(gateway, "sql", artifact(tmp_path, "sql"))
    await phase(gateway, "sql", "Running")
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from controller.adapters.record import Record
from tests.router.gateway import SGLANG, VLLM, Gateway, until

LORA = replace(VLLM, enable_lora=True)
LORA_SGLANG = replace(SGLANG, enable_lora=True)
BOTH = (LORA, LORA_SGLANG)


def artifact(folder: Path, name: str, *, rank: int = 8, base: str = "base") -> str:
    """A folder with an adapter in it."""
    made = folder / "loras" / name
    made.mkdir(parents=True, exist_ok=True)
    (made / "adapter_config.json").write_text(json.dumps({"r": rank, "base_model_name_or_path": base}))
    return str(made)


async def put(gateway: Gateway, name: str, source: str, **spec: Any) -> httpx2.Response:
    return await gateway.client.put(f"/adapters/{name}", json={"baseModel": "base", "artifactURL": source} | spec)


async def applied(gateway: Gateway, name: str, source: str, **spec: Any) -> None:
    """Wanted, and there."""
    answer = await put(gateway, name, source, **spec)
    assert answer.status_code == 200, answer.text
    await phase(gateway, name, "Running")


def record(gateway: Gateway, name: str) -> Record:
    return gateway.live.adapters.get(name)


async def phase(gateway: Gateway, name: str, wanted: str) -> None:
    await until(lambda: record(gateway, name).phase == wanted)


async def status(gateway: Gateway, name: str) -> dict[str, Any]:
    answer = await gateway.client.get(f"/adapters/{name}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["status"]
    return found


async def reasons(gateway: Gateway, name: str) -> list[str]:
    answer = await gateway.client.get(f"/adapters/{name}/events")
    return [event["reason"] for event in answer.json()["data"]]


def loaded(gateway: Gateway, instance: str) -> dict[str, str]:
    """What the engine itself has."""
    return {one.name: one.path for one in gateway.sims[instance].engine.adapters.all()}
