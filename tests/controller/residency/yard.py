"""In place of the launcher and its tmux: starts and ends the processes of a house's engines, and outlives gateways."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from controller.config.model import Config
from controller.fleet.errors import EngineFailed, NotPossible
from controller.fleet.fleet import Fleet
from controller.fleet.keeper import Rest
from controller.launch import plan
from controller.launch.exclusion import TURN_SECONDS
from controller.launch.gateway import Books, Gateway, GatewayPlan, GatewayRefused
from controller.launch.launcher import Launcher, Outcome, State
from controller.launch.room import NoRoom, Room
from controller.launch.tmux import Pane
from controller.launch.unit import Start, Unit, engine_unit
from controller.reload.rollout import Steps
from controller.residency.arbiter import Arbiter
from controller.residency.occupancy import occupant_of
from controller.residency.tenants import footprint_of
from controller.supervisor.keeper import LaunchKeeper
from router.errors import GatewayError
from router.reload import Reload
from state.desired_states import DesiredState, DesiredStates, Wanted
from state.launches import Launch, Launches
from tests.controller.residency.tenant_engine import TenantEngine

LAUNCHER = "the launcher"


class Records(Launches):
    """Launches in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Launch] = {}

    async def all(self) -> Mapping[str, Launch]:
        return dict(self.kept)


class Wishes(DesiredStates):
    """Desired states in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, DesiredState] = {}

    async def all(self) -> Mapping[str, DesiredState]:
        await asyncio.sleep(0)
        return dict(self.kept)

    async def put(self, *states: DesiredState) -> None:
        await asyncio.sleep(0)
        self.kept.update({one.instance: one for one in states})

    async def clear(self, instance: str) -> None:
        await asyncio.sleep(0)
        self.kept.pop(instance, None)


class Yard:
    """``launched``: name -> the process that was started for it, until it is ended; ``starts``: as what.

    ``alone``: held by the launcher that is at work. ``turns``: by whoever starts or ends that process.
    """

    def __init__(self, engines: Mapping[str, TenantEngine]) -> None:
        self.engines = engines
        self.launched: dict[str, str] = {}
        self.starts: dict[str, Start] = {}
        self.records = Records()
        self.wishes = Wishes()
        self.alone = asyncio.Lock()
        self.turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def start(self, unit: Unit) -> None:
        engine = self.engines[unit.name]
        if not engine.runs:
            engine.launch()
            self.starts.pop(unit.name, None)
        if unit.name not in self.starts:
            assert unit.instance is not None
            occupant = occupant_of(unit.instance)
            launch = Launch(unit.name, unit.session, engine.process, *unit.record, engine.clock(), occupant)
            self.starts[unit.name], self.records.kept[unit.name] = unit.record, launch
        self.launched[unit.name] = engine.process

    async def stop(self, name: str) -> None:
        engine = self.engines[name]
        await asyncio.sleep(engine.lasts.get("stop", 0.0))
        engine.end()
        self.launched.pop(name, None)
        self.starts.pop(name, None)
        self.records.kept.pop(name, None)

    def runs(self, name: str) -> bool | None:
        if name not in self.launched:
            return None
        engine = self.engines[name]
        return engine.runs and engine.process == self.launched[name]

    def rest(self, config: Config, name: str) -> Rest | None:
        instance = next(one for one in config.instances if one.name == name)
        record, desired = self.records.kept.get(name), self.wishes.kept.get(name)
        return None if self.runs(name) else plan.rest(instance, record, desired)

    def steps(self, config: Config, units: Sequence[Unit]) -> Steps:
        """What ``launch.py --reload`` would do."""
        up = {name for name in self.launched if self.runs(name)}
        there = {unit.name for unit in units}
        changed = {unit.name: plan.changes(self.starts[unit.name], unit.record) for unit in units if unit.name in up}
        down = [unit for unit in units if unit.name not in up]
        return Steps(
            start=tuple(unit for unit in down if self.rest(config, unit.name) is None),
            restart={name: reasons for name, reasons in changed.items() if reasons},
            stop=tuple(Pane("", name, 0, dead=False, unit=name) for name in self.launched if name not in there),
        )


class YardKeeper(LaunchKeeper):
    def __init__(self, fleet: Fleet, yard: Yard) -> None:
        self._fleet = fleet
        self._environment = {}
        self._yard = yard

    async def start(self, name: str) -> None:
        async with self._turn(name):
            desired = (await self._yard.wishes.all()).get(name)
            if desired is not None and desired.wanted is Wanted.STOPPED:
                raise NotPossible(f"{name!r} is not started: it was stopped by {desired.by}")
            engine = self._yard.engines[name]
            if "start refused" in engine.faults:
                engine.faults.remove("start refused")
                raise EngineFailed(f"{name!r} cannot be started")
            self._yard.start(self._unit(name))

    async def stop(self, name: str) -> None:
        async with self._turn(name):
            self._unit(name)
            await self._yard.stop(name)

    async def end_leftovers(self, name: str) -> None:
        """Nothing here leaves anything behind."""

    async def rest(self, name: str) -> Rest | None:
        if not self.can(name):
            return None
        await asyncio.sleep(0)
        return self._yard.rest(self._fleet.config, name) if self.can(name) else None

    async def runs(self, name: str) -> bool | None:
        await asyncio.sleep(0)
        return self._yard.runs(name)

    async def processes(self) -> Mapping[str, bool]:
        return {name: bool(self._yard.runs(name)) for name in self._yard.launched}

    async def ending(self, name: str) -> str:
        self._unit(name)
        await asyncio.sleep(0)
        return "exit 1"

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """Once a launcher is not at it any more, which is waited for, for so long at most."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._yard.turns[name].acquire()
        except TimeoutError:
            raise EngineFailed(f"{name!r}: a launcher is at it") from None
        try:
            yield
        finally:
            self._yard.turns[name].release()


class YardLauncher(Launcher):
    """What the launcher's own process does."""

    def __init__(self, yard: Yard, room: Room) -> None:
        self._yard = yard
        self._beside = room

    async def up(self, units: Sequence[Unit], **_: Any) -> dict[str, Outcome]:
        return {unit.name: await self._up(unit) for unit in units}

    async def _up(self, unit: Unit) -> Outcome:
        assert unit.instance is not None
        try:
            async with self._beside.kept(unit.instance, lambda _: None), self._yard.turns[unit.name]:
                self._yard.start(unit)
        except NoRoom as none:
            return Outcome(State.NO_ROOM, str(none))
        except GatewayRefused as refused:
            return Outcome(State.FAILED, str(refused))
        engine = self._yard.engines[unit.name]
        while engine.runs and not engine.there:  # noqa: ASYNC110  # as the launcher does
            await asyncio.sleep(0.25)
        return Outcome(State.READY)

    async def stop(self, units: Sequence[Unit]) -> dict[str, str | None]:
        for unit in units:
            async with self._yard.turns[unit.name]:
                await self._yard.stop(unit.name)
        return {unit.name: None for unit in units}

    async def close(self, pane: Pane) -> str | None:
        await self._yard.stop(pane.unit)
        return None


class NextDoor(Gateway):
    """The gateway, as the launcher asks it over HTTP."""

    def __init__(self, reload: Reload, fleet: Fleet, arbiter: Arbiter) -> None:
        self._reload = reload
        self._fleet = fleet
        self._arbiter = arbiter

    async def apply(self) -> GatewayPlan:
        try:
            await self._reload.apply()
        except GatewayError as refused:
            raise GatewayRefused(refused.status, str(refused)) from refused
        return GatewayPlan((), ())

    async def drain(self, name: str, seconds: float) -> None:
        try:
            await self._reload.drain(name, seconds)
        except GatewayError as refused:
            raise GatewayRefused(refused.status, str(refused)) from refused

    async def is_ours(self) -> bool:
        return True

    async def books(self) -> Books:
        instances = self._fleet.instances.items()
        books = self._arbiter.books()
        return Books({name: footprint_of(one).awake for name, one in instances}, books.free, books.capacity)

    async def admit(self, name: str) -> None:
        try:
            await self._reload.admit(name)
        except GatewayError as refused:
            raise GatewayRefused(refused.status, str(refused)) from refused


def units_of(config: Config) -> tuple[Unit, ...]:
    return tuple(engine_unit(config, one, {}) for one in config.instances if one.launched)
