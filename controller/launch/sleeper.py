"""Puts an engine to sleep that has just come up, so that the next has room.

Through the gateway if it is there, for it may have requests for the engine; else with the mark by which a gateway that
comes later knows it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from urllib.parse import quote

import httpx2

from controller.config.model import Config, Instance
from controller.fleet.instance import STAGED
from controller.launch.unit import router_url
from controller.residency.footprint import Footprint
from controller.residency.measured import completed
from controller.residency.release import Release
from runtime.engines.base import EngineError
from runtime.engines.control import PROBE_SECONDS
from runtime.engines.kinds import KINDS
from runtime.engines.spec import CALL_SECONDS
from runtime.gpus import Panel
from runtime.processes import family, listener
from state.sleep_marks import Phase, SleepMark, SleepMarks

log = logging.getLogger(__name__)

NOTICE_SECONDS = 15.0
"""For which a gateway may take to notice that the engine is ready."""

POLL_SECONDS = 0.25


class StaysAwake(Exception):
    """It does not sleep; the message says why."""


class Sleeper:
    def __init__(self, config: Config, client: httpx2.AsyncClient, marks: SleepMarks, panel: Panel) -> None:
        self._config = config
        self._client = client
        self._marks = marks
        self._panel = panel
        self._url = router_url(config)
        self._headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}

    async def put_to_sleep(self, instance: Instance) -> None:
        """Raises ``StaysAwake`` or ``StateError``."""
        if await self._gateway_knows(instance):
            await self._ask_the_gateway(instance)
        else:
            await self._tell_the_engine(instance)

    async def _gateway_knows(self, instance: Instance) -> bool:
        """Whether a gateway with this very instance is there."""
        try:
            answer = await self._client.get(
                f"{self._url}/model/sleep/status", headers=self._headers, timeout=PROBE_SECONDS
            )
            return answer.status_code == 200 and instance.name in answer.json()["models"][instance.model]["instances"]
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            return False

    async def _ask_the_gateway(self, instance: Instance) -> None:
        await self._have_it_admitted(instance)
        url = f"{self._url}/action/sleep/{quote(instance.name)}?staged=true"
        deadline = time.monotonic() + NOTICE_SECONDS
        seconds = instance.sleep.drain_timeout_seconds + CALL_SECONDS
        while True:
            try:
                answer = await self._client.post(url, headers=self._headers, timeout=seconds)
                error = {} if answer.status_code == 200 else answer.json()["error"]
            except (httpx2.HTTPError, ValueError, KeyError, TypeError) as failed:
                raise StaysAwake(f"the gateway does not answer: {failed}") from failed
            if answer.status_code == 200:
                return
            unnoticed = error.get("code") == "not_possible"  # it takes it to be starting still
            if not unnoticed or time.monotonic() > deadline:
                raise StaysAwake(str(error.get("message")))
            await asyncio.sleep(POLL_SECONDS)

    async def _have_it_admitted(self, instance: Instance) -> None:
        """It may be out of service yet, because it is started anew."""
        try:
            await self._client.post(f"{self._url}/admin/admit/{quote(instance.name)}", headers=self._headers)
        except httpx2.HTTPError as failed:
            raise StaysAwake(f"the gateway does not answer: {failed}") from failed

    async def _tell_the_engine(self, instance: Instance) -> None:
        engine = KINDS[instance.spec.kind].connect(instance.spec, self._client, instance.sleep.wake_timeout_seconds)
        if not engine.capabilities.sleep:
            raise StaysAwake(f"an engine of kind {instance.spec.kind!r} has no way to sleep")
        try:
            if await engine.busy():
                raise StaysAwake("it has requests already")
            process = await asyncio.to_thread(listener, instance.spec.port)
            level = engine.capabilities.levels_from(instance.sleep.level)[0]
            mark = SleepMark(instance.name, Phase.FALLING_ASLEEP, level, STAGED, time.time(), process)
            await self._marks.put(mark)
            release = await self._release(process)
            await engine.sleep(level)
            if await engine.is_asleep() is False:
                await self._marks.clear(instance.name)
                raise StaysAwake("it says that it is awake after it was put to sleep")
        except EngineError as error:  # it may have been told: the mark stays, and a gateway finds out
            raise StaysAwake(str(error)) from error
        await self._marks.put(replace(mark, phase=Phase.ASLEEP))
        if release is not None:
            await self._await(release, instance, level)

    async def _release(self, process: str | None) -> Release | None:
        """None where its memory cannot be seen."""
        if process is None:
            return None
        return await Release.begin(await asyncio.to_thread(family, [process]), self._panel.read)

    async def _await(self, release: Release, instance: Instance, level: int) -> None:
        """What it gives back is what the next one is started with."""
        figures = instance.footprint or completed(Footprint(release.held))
        if figures.awake and not await release.ends(figures.at(level), figures.awake):
            log.warning("%s sleeps, and has not given back its memory", instance.name)
