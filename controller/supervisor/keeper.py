"""Starts and ends engines for the gateway, and starts their sidecars.

With what the launcher does it with, and never beside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace

import httpx2

from controller.config.model import Config, Instance
from controller.fleet.errors import EngineFailed, NotPossible
from controller.fleet.fleet import Fleet
from controller.fleet.keeper import Rest
from controller.launch import plan, process_tree
from controller.launch.exclusion import AtWork, turn
from controller.launch.launcher import Launcher, State
from controller.launch.progress import Progress
from controller.launch.sessions import last_leader
from controller.launch.sleeper import Sleeper
from controller.launch.survey import Survey
from controller.launch.tmux import Tmux, TmuxError
from controller.launch.unit import Unit, engine_unit, sidecar_unit
from runtime.gpus import Nvml, Panel
from runtime.processes import is_running
from state.database import StateError
from state.desired_states import DesiredState, DesiredStates, Wanted
from state.launches import Launches
from state.sleep_marks import SleepMarks

log = logging.getLogger(__name__)

BROKEN = (AtWork, StateError, TmuxError, OSError)


class LaunchKeeper:
    """``environment``: what engines inherit."""

    def __init__(
        self,
        fleet: Fleet,
        environment: Mapping[str, str],
        launches: Launches,
        desired: DesiredStates,
        marks: SleepMarks,
        client: httpx2.AsyncClient,
    ) -> None:
        self._fleet = fleet
        self._environment = environment
        self._launches = launches
        self._desired = desired
        self._marks = marks
        self._client = client
        self._tmux = Tmux()
        self._ends: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """What is being ended has ended then."""
        await asyncio.gather(*self._ends, return_exceptions=True)

    def can(self, name: str) -> bool:
        instance = self._fleet.instances.get(name)
        return instance is not None and instance.config.launched

    async def start(self, name: str) -> None:
        try:
            async with turn(self._unit(name)):
                await self._start(name)
        except BROKEN as problem:
            raise EngineFailed(f"{name!r} cannot be started: {problem}") from problem

    async def stop(self, name: str) -> None:
        """Leaving breaks nothing off: nobody else may touch what is being ended, nor take it for crashed."""
        task = asyncio.create_task(self._stop(*self._launcher(name)), name=f"the end of {name}")
        self._ends.add(task)
        task.add_done_callback(self._has_ended)
        await asyncio.shield(task)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self._ends.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # who asked may have left
            log.info("%s: %s", task.get_name(), error)

    async def _stop(self, unit: Unit, launcher: Launcher) -> None:
        name = unit.name
        try:
            async with turn(unit):
                problem = (await launcher.stop([unit]))[name]
        except BROKEN as broken:
            raise EngineFailed(f"{name!r} cannot be stopped: {broken}") from broken
        if problem is not None:
            raise EngineFailed(f"{name!r} cannot be stopped: {problem}")

    async def end_leftovers(self, name: str) -> None:
        """End what an engine that has ended has left behind; its session stays. Raises ``TransitionRefused``."""
        unit, seconds = self._unit(name), self._fleet.config.launch.stop_timeout_seconds
        try:
            async with turn(unit):
                launch = (await self._launches.all()).get(name)
                if launch is not None and await asyncio.to_thread(is_running, launch.process):
                    return  # it has been started meanwhile
                left = await asyncio.to_thread(process_tree.stop, last_leader(launch), unit.marker, seconds)
        except BROKEN as broken:
            raise EngineFailed(str(broken)) from broken
        if left:
            raise EngineFailed(f"processes that could not be ended: {', '.join(map(str, left))}")

    async def rest(self, name: str) -> Rest | None:
        instance = self._fleet.instances.get(name)
        if instance is None or not instance.config.launched:
            return None
        launch, desired = (await self._launches.all()).get(name), (await self._desired.all()).get(name)
        if launch is not None and await asyncio.to_thread(is_running, launch.process):
            return None
        return plan.rest(instance.config, launch, desired)

    async def runs(self, name: str) -> bool | None:
        """Whether the process that was started for it runs; None when none was."""
        launch = (await self._launches.all()).get(name)
        return None if launch is None else await asyncio.to_thread(is_running, launch.process)

    async def processes(self) -> Mapping[str, bool]:
        """Of those that were started: whether the process runs."""
        return {name: is_running(launch.process) for name, launch in (await self._launches.all()).items()}

    async def has_ended(self, name: str) -> str | None:
        """How its process ended, if nobody wanted that; None while a launcher is at it."""
        try:
            async with turn(self._unit(name), 0.0):
                if await self._stopped(name) or await self.runs(name) is not False:
                    return None
                return await self.ending(name)
        except (AtWork, OSError):
            return None

    async def ending(self, name: str) -> str:
        """How its process ended, as tmux tells."""
        unit = self._unit(name)
        try:
            await asyncio.to_thread(self._tmux.reap)
            pane = plan.find(unit, await asyncio.to_thread(self._tmux.panes))[0]
        except TmuxError as failed:
            return str(failed)
        if pane is None:
            return "its tmux session is gone"
        return pane.status or "how is not known"

    def share_a_gpu(self, one: str, other: str) -> bool:
        """Whether the two may load onto the same GPU."""
        return plan.share_a_gpu(self._unit(one), self._unit(other))

    async def _start(self, name: str) -> None:
        desired = await self._stopped(name)
        if desired is not None:
            raise NotPossible(f"{name!r} is not started: it was stopped by {desired.by}")
        unit, launcher = self._launcher(name)
        outcome = (await launcher.up([unit], wait=False))[name]
        if outcome.state is State.FAILED:
            raise EngineFailed(f"{name!r} cannot be started: {outcome.detail}")

    async def _stopped(self, name: str) -> DesiredState | None:
        """The wish that it does not run, if there is one."""
        desired = (await self._desired.all()).get(name)
        return desired if desired is not None and desired.wanted is Wanted.STOPPED else None

    def _instance(self, name: str) -> Instance:
        """That is called so, or whose sidecar is. Raises ``NotPossible``."""
        found = self._fleet.instances.get(name)
        config = found.config if found is not None else sidecars_of(self._fleet.config).get(name)
        if config is None:
            raise NotPossible(f"{name!r} has been taken out of the configuration")
        return config

    def _unit(self, name: str) -> Unit:
        config, instance = self._fleet.config, self._instance(name)
        if instance.sidecar is not None and instance.sidecar.name == name:
            return sidecar_unit(config, instance, instance.sidecar, self._environment)
        return engine_unit(config, instance, self._environment)

    def _launcher(self, name: str) -> tuple[Unit, Launcher]:
        unit = self._unit(name)
        alone_in_it = replace(self._fleet.config, instances=(self._instance(name),))
        survey = Survey(alone_in_it, [unit], self._tmux, self._client, self._marks)
        sleeper = Sleeper(alone_in_it, self._client, self._marks, Panel(Nvml()))
        return unit, Launcher(alone_in_it, survey, self._tmux, self._launches, sleeper, Progress(), turn=_taken)


def _taken(_: Unit) -> AbstractAsyncContextManager[None]:
    """The launcher's turn is the keeper's own."""
    return nullcontext()


def sidecars_of(config: Config) -> Mapping[str, Instance]:
    """Their names, each with the instance that it is beside."""
    return {one.sidecar.name: one for one in config.instances if one.sidecar is not None}
