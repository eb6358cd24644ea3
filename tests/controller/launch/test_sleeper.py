"""An engine that has just come up is put to sleep, and the next one started with what it gave back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.config.load import load
from controller.config.model import Instance
from controller.launch.sleeper import Sleeper
from controller.residency import release
from runtime.engines.control import open_client
from runtime.gpus import Panel
from state.database import open_database
from state.sleep_marks import SleepMarks
from tests.controller.residency.fake_gpus import FakeGpus
from tests.ports import free_port
from tests.router.gateway import Sim, Spec, engines, write_yaml

pytestmark = pytest.mark.anyio


@dataclass
class Place:
    """``gpus``: what this process, in which the engine runs, holds of them."""

    engine: Sim
    gpus: FakeGpus
    sleeper: Sleeper
    instance: Instance

    def holds(self, gib: float) -> None:
        self.gpus.held[0] = {os.getpid(): gib}

    async def looked(self, times: int) -> None:
        until = self.gpus.looks + times
        async with asyncio.timeout(10):
            while self.gpus.looks < until:
                self.gpus.looked.clear()
                await self.gpus.looked.wait()


@contextlib.asynccontextmanager
async def place_of(folder: Path, *totals: float, **entry: Any) -> AsyncIterator[Place]:
    async with engines(Spec("one", yaml=entry)) as sims, open_client() as client:
        file = write_yaml(folder, [sims["one"].spec.entry(sims["one"].url)], router={"router_port": free_port()})
        config, gpus = load(file, {}), FakeGpus(*totals)
        async with open_database(config.state_url) as database:
            sleeper = Sleeper(config, client, SleepMarks(database), Panel(gpus))
            yield Place(sims["one"], gpus, sleeper, config.instances[0])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "POLL_SECONDS", 0.001)


@pytest.mark.parametrize("figures", [{"gpus": [0], "memory_gib": 30, "asleep_memory_gib": 1}, {}], ids=["said", "seen"])
async def test_what_it_gives_back_is_awaited(tmp_path: Path, figures: dict[str, Any]) -> None:
    """It says that it sleeps before the driver has its memory."""
    async with place_of(tmp_path, 80, **figures) as place:
        place.holds(30)
        telling = asyncio.create_task(place.sleeper.put_to_sleep(place.instance))
        await place.looked(5)
        assert place.engine.engine.asleep and not telling.done()
        place.holds(10)
        await place.looked(3)
        assert not telling.done()
        place.holds(1)
        await telling


async def test_what_never_comes_back_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(release, "SETTLE_SECONDS", 0.01)
    async with place_of(tmp_path, 80) as place:
        place.holds(30)
        await place.sleeper.put_to_sleep(place.instance)
        assert place.engine.engine.asleep
    assert "one sleeps, and has not given back its memory" in caplog.text


async def test_without_a_driver_nothing_is_awaited(tmp_path: Path) -> None:
    async with place_of(tmp_path, gpus=[0], memory_gib=30) as place:
        await place.sleeper.put_to_sleep(place.instance)
        assert place.engine.engine.asleep
