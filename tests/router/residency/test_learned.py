"""A gateway whose YAML says nothing of memory, on a machine with a GPU and on one without."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from controller import service
from controller.residency.memory import GIB
from tests.controller.residency.fake_gpus import FakeGpus
from tests.router.gateway import Gateway, Spec, until, whole

pytestmark = pytest.mark.anyio


async def shown(running: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = (await running.client.get("/residency")).json()
    return found


async def test_what_was_measured_is_shown_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Awake, then asleep; a request brings it back."""
    gpus = FakeGpus(80)
    gpus.held[0] = {os.getpid(): 30.0}  # the engine runs in this process
    monkeypatch.setattr(service, "Nvml", lambda: gpus)
    async with whole(tmp_path, Spec("a")) as running:
        instance = running.fleet.instances["a"]
        await until(lambda: instance.measured is not None)
        page = await shown(running)
        assert page["places"] == {"gpu0": {"capacity": 79.5 * GIB, "used": 30 * GIB, "free": 49.5 * GIB}}
        assert page["instances"]["a"]["managed"]
        assert page["instances"]["a"]["measured"] == {"awake": {"gpu0": 30 * GIB}, "asleep": {}}
        sleeping = asyncio.create_task(running.put_to_sleep("a"))
        await until(lambda: running.sims["a"].count("sleep_calls") == 1)
        assert (await shown(running))["places"]["gpu0"]["free"] == 49.5 * GIB
        gpus.held[0] = {os.getpid(): 1.0}
        await sleeping
        await until(lambda: instance.measured is not None and 1 in instance.measured.asleep)
        page = await shown(running)
        assert page["places"]["gpu0"]["free"] == 78.5 * GIB
        assert page["instances"]["a"]["measured"]["asleep"]["1"]["gpu0"] == GIB
        assert (await running.complete("a")).status_code == 200


async def test_without_a_driver_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "Nvml", FakeGpus)
    async with whole(tmp_path, Spec("a")) as running:
        page = await shown(running)
        assert page["places"] == {}
        assert page["instances"]["a"]["measured"] is None
        assert not page["instances"]["a"]["managed"]
