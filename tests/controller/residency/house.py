"""A gateway with its fleet and its arbiter, in virtual time: all real but the engines, which note whatever must not
happen to them, the launcher (``yard``), and HTTP.

house = House([tenant("a", 30), tenant("b", 60)], gpus={0: 80})
held = house.engines["b"].hold("wake")       # as on the stage of one instance
asking = house.ask("b")
house.loop.turn(20)                          # so many rounds of the loop; no time passes
house.loop.pass_time(5)
assert asking.outcome == "served"
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import tempfile
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from unittest import mock

import yaml

from benchmarks.virtual_time import VirtualLoop
from controller.adapters.controller import AdapterController
from controller.config.load import load
from controller.config.model import Config
from controller.config.model import Instance as InstanceConfig
from controller.fleet import fleet as fleet_module
from controller.fleet.chronicle import Chronicle
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.journal import Event
from controller.fleet.origin import Origin
from controller.fleet.state import State
from controller.launch.room import Room
from controller.launch.unit import Unit
from controller.reload.rollout import Rollout
from controller.residency.arbiter import Arbiter, arbitrated
from controller.residency.footprint import Footprint
from controller.residency.memory import HOST, NOTHING
from controller.residency.seniority import recall
from controller.service import Company, count_lost
from controller.supervisor.supervisor import Supervisor
from router.auth.guard import Key
from router.lifespan import Live
from router.reload import Reload
from runtime.engines.base import Engine
from state.desired_states import DesiredState, Wanted
from state.launches import Launches
from state.sleep_marks import Phase, SleepMark
from tests.controller.fleet.stage import FakeMarks, Steps
from tests.controller.residency.client import Client
from tests.controller.residency.tenant_engine import NextGateway, NoOrigin, TenantEngine, TenantOrigin
from tests.controller.residency.yard import LAUNCHER, NextDoor, Yard, YardKeeper, YardLauncher, units_of

SETTLES = 200
"""Rounds in which whatever can happen at once has happened."""

FIRST_PORT = 20_000


def tenant(name: str, size: float, **more: Any) -> dict[str, Any]:
    """One instance, as in the YAML. It keeps 1 GiB asleep. It runs elsewhere."""
    entry = {"name": name, "model": name, "engine": "sim", "url": f"http://{name}.invalid:1", "gpus": [0]}
    return {**entry, "engine_args": ["--enable-sleep-mode"], "memory_gib": size, "asleep_memory_gib": 1, **more}


def launched(number: int, name: str, size: float, **more: Any) -> dict[str, Any]:
    """One that the launcher starts. ``number``: no other's."""
    entry = {**tenant(name, size, **more), "port": FIRST_PORT + number}
    del entry["url"]
    return entry


class Ears(logging.Handler):
    """Hears of errors that nobody expected."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._heard.append(logging.Formatter().format(record))


class NoAdapters(AdapterController):
    def __init__(self) -> None: ...

    async def declare(self, _: Any) -> None:
        await asyncio.sleep(0)

    def rest(self) -> list[asyncio.Task[None]]:
        return []


class House:
    """``gpus``, ``host``: GiB. ``silent``: who does not tell whether it sleeps. ``light``: who knows but level 1.

    ``sections``: whatever else the YAML says, and may be changed for the next reload.
    """

    def __init__(
        self,
        tenants: Sequence[Mapping[str, Any]],
        gpus: Mapping[int, float],
        *,
        host: float | None = None,
        silent: Sequence[str] = (),
        light: Sequence[str] = (),
        asleep: Sequence[str] = (),
        **sections: Any,
    ) -> None:
        self.loop = VirtualLoop()
        self.wrong: list[str] = []
        self.loop.set_exception_handler(lambda _, broken: self.wrong.append(repr(broken.get("exception", broken))))
        self._ears = Ears(self.wrong)
        logging.getLogger().addHandler(self._ears)
        self.clients: list[Client] = []
        self.by_hand: list[asyncio.Task[None]] = []
        self.uninteresting: set[asyncio.Task[None]] = set()
        self.chance = random.Random(1)
        self.sections = sections
        sections.setdefault("sleep_manager", {"min_sleep_duration": 0, "wake_timeout_seconds": 60})
        sections.setdefault("residency", {"min_awake_seconds": 0})
        sections["gpus"] = {number: {"memory_gib": size} for number, size in gpus.items()}
        if host is not None:
            sections["host"] = {"memory_gib": host}
        self.tenants = {str(one["name"]): dict(one) for one in tenants}
        self._silent, self._light = silent, light
        self._folder = tempfile.TemporaryDirectory()
        self.file = Path(self._folder.name) / "torpor.yaml"
        self._known: dict[str, Config] = {}
        self.engines: dict[str, TenantEngine] = {}
        self.yard = Yard(self.engines)
        self.restarting: set[str] = set()  # they count as awake before there is room for them
        self.marks = FakeMarks(Steps())
        self.write()
        config = self._read(self.file)
        for unit in units_of(config):
            self.engines[unit.name].runs = self.engines[unit.name].there = True
            self.yard.start(unit)
            self.yard.wishes.kept[unit.name] = DesiredState(unit.name, Wanted.RUNNING, 0.0, LAUNCHER)
        free = config.capacity.get(HOST, math.inf)
        for name in asleep:
            engine = self.engines[name]
            taken = engine.footprint.at(1).get(HOST, 0)
            engine.asleep, engine.level = True, 1 if taken <= free or name in light else 2
            engine.astray = engine.level == 1 and taken > free
            free -= taken if engine.level == 1 else 0
            self.marks.kept[name] = SleepMark(name, Phase.ASLEEP, engine.level, "manual", 0.0, engine.process)
        self._patched = mock.patch.object(fleet_module, "Origin", self._origin_of)
        self._patched.start()
        self._open = contextlib.AsyncExitStack()
        self.serves = asyncio.Event()
        self.elders: dict[Live, asyncio.Task[None]] = {}  # gateways before this one
        self.finishing: dict[Live, asyncio.Task[None]] = {}
        self.busy: set[Live] = set()  # those of them with something in flight on an engine
        self.chronicled: list[Event] = []  # what gateways before this one have told
        self.live: Live
        self.reload: Reload
        self.open()

    def write(self) -> None:
        """The YAML, as the tenants and sections are now. Engines that are new there are built."""
        models = {one["model"] for one in self.tenants.values()}
        content = {**self.sections, "instances": list(self.tenants.values())}
        content["models"] = {name: one for name, one in self.sections.get("models", {}).items() if name in models}
        groups = self.sections.get("groups", {}).items()
        content["groups"] = {name: one for name, one in groups if models.issuperset(one["members"])}
        self.file.write_text(yaml.safe_dump(content), encoding="utf-8")
        for one in self._read(self.file).instances:
            if one.name not in self.engines:
                engine = TenantEngine(
                    one.name,
                    one.footprint or Footprint(NOTHING),
                    self.loop.time,
                    tells=one.name not in self._silent,
                    levels=(1,) if one.name in self._light else (1, 2),
                    runs=not one.launched,
                )
                self.engines[one.name] = engine
            if hasattr(self, "live") and one.name not in self.fleet.instances:
                self.engines[one.name].astray = True  # it brings its memory along

    def _read(self, file: Path) -> Config:
        """To read a YAML takes longer than to live through it: the same one is read once."""
        text = file.read_text(encoding="utf-8")
        if text not in self._known:
            self._known[text] = load(file, {})
        return self._known[text]

    @property
    def config(self) -> Config:
        return self.live.config

    @property
    def fleet(self) -> Fleet:
        return self.live.fleet

    @property
    def arbiter(self) -> Arbiter:
        return self.live.arbiter

    # -- the gateway ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the gateway, over the engines as they are."""
        self.loop.run_until_complete(self._opening())

    def close(self) -> None:
        """Stop it. Its clients are gone; its engines are not, and do what they were told."""
        for client in self.clients:
            client.leave()
        for task in self.by_hand:
            self.lose_interest(task)
        self.loop.run_until_complete(self._closing())
        self.loop.turn(3)
        for engine in self.engines.values():
            engine.running = 0

    def demolish(self) -> None:
        for steps in (self.marks.steps, *(engine.steps for engine in self.engines.values())):
            steps.let_all_go()
        self.close()
        for engine in self.engines.values():
            while engine.at_work:
                self.loop.pass_time(1.0)
        self._patched.stop()
        self.loop.end()
        logging.getLogger().removeHandler(self._ears)
        self._folder.cleanup()

    async def _closing(self) -> None:
        self.chronicled += self.told
        for finishing in self.finishing.values():
            finishing.cancel()
        await asyncio.gather(*self.elders.values(), self._open.aclose())

    async def _opening(self) -> None:
        self.serves.clear()
        self._open = contextlib.AsyncExitStack()
        self.live = await self._open.enter_async_context(self._gateway(self._read(self.file)))
        self.reload = Reload(self.live, self._read)
        self._open.push_async_callback(self.reload.aclose)
        self._tell_if_alone()
        self.serves.set()

    def succeed(self) -> None:
        """The next gateway takes over: ``launch.py --restart-gateway``. The one before finishes what it has."""
        self.loop.run_until_complete(self._leaving())
        self.open()

    async def _leaving(self) -> None:
        self.serves.clear()
        await self.live.leave("http://127.0.0.1:1")
        self.chronicled += self.told
        self.busy.add(self.live)
        asked = [task for task in self.by_hand if not task.done()]
        self.finishing[self.live] = self.loop.create_task(self._finish(self.live, asked))
        self.elders[self.live] = self.loop.create_task(self._end(self.live, self._open))

    async def _finish(self, elder: Live, asked: list[asyncio.Task[None]]) -> None:
        await elder.farewells.all_ended()
        self._is_empty(elder)
        while any(client.live is elder and not client.outcome for client in self.clients):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await asyncio.gather(*asked, return_exceptions=True)

    async def _end(self, elder: Live, opened: contextlib.AsyncExitStack) -> None:
        await asyncio.wait([self.finishing[elder]])
        self._is_empty(elder)
        await opened.aclose()
        del self.finishing[elder], self.elders[elder]

    def _is_empty(self, elder: Live) -> None:
        self.busy.discard(elder)
        self._tell_if_alone()

    def _tell_if_alone(self) -> None:
        if not self.busy:
            self.live.fleet.has_predecessor = False
            self.live.arbiter.look_soon()

    @contextlib.asynccontextmanager
    async def _gateway(self, config: Config) -> AsyncIterator[Live]:
        """As ``controller.service`` and ``router.lifespan`` put it together."""

        clock = self.loop.time
        fleet = Fleet(config, self._connect, self.marks, self.yard.records, clock, clock)
        fleet.has_predecessor = bool(self.busy)
        keeper = YardKeeper(fleet, self.yard)
        await count_lost(fleet, await keeper.processes(), self.yard.records, self.marks, {})
        fleet.put_in_keeping(keeper)
        fleet.guard(self._dress)
        supervisor = Supervisor(fleet, keeper, self.yard.wishes)
        seniority = recall(self.chronicled, clock(), clock())
        async with arbitrated(fleet, NOTHING, seniority) as arbiter, fleet.watched(), supervisor.running():
            company = Company(fleet, NoAdapters(), arbiter, cast(Chronicle, None), supervisor)
            live = Live(config, company, Key(None))
            live.put_idle_to_sleep()
            try:
                yield live
            finally:
                await live.aclose()

    async def _dress(self, instance: Instance, _: bool) -> None:
        if isinstance(engine := instance.engine, TenantEngine):
            await engine.dress()

    def _connect(self, one: InstanceConfig) -> Engine:
        return self.engines[one.name] if one.name in self.engines else NextGateway()

    def _origin_of(self, one: InstanceConfig, _: Launches) -> Origin:
        return TenantOrigin(self.engines[one.name], self.yard.launched) if one.name in self.engines else NoOrigin()

    # -- what happens in it --------------------------------------------------------------------------------------

    def ask(self, model: str, seconds: float = 60.0, lasts: float | None = None) -> Client:
        """A client that waits for so many seconds."""
        client = Client(self, model, seconds, lasts)
        self.clients.append(client)
        return client

    def settle(self) -> None:
        """Whatever can happen now has happened."""
        self.loop.turn(SETTLES)

    def put_to_sleep(self, name: str, cause: str = "manual", drain_seconds: float = 5.0) -> asyncio.Task[None]:
        return self._by_hand(self.fleet.transitions[name].sleep(cause, drain_seconds))

    def wake(self, name: str) -> asyncio.Task[None]:
        """By hand."""
        return self._by_hand(self.fleet.waker.wake(self.fleet.instances[name], "manual"))

    def stop(self, name: str) -> asyncio.Task[None]:
        return self._by_hand(self.live.supervisor.stop([self.fleet.instances[name]], "somebody"))

    def start(self, name: str) -> asyncio.Task[None]:
        return self._by_hand(self.live.supervisor.start([self.fleet.instances[name]], "somebody"))

    def lose_interest(self, task: asyncio.Task[None]) -> None:
        """Who asked has gone."""
        if task.cancel():
            self.uninteresting.add(task)

    def apply(self) -> asyncio.Task[None]:
        """The tenants and sections as they are now: ``POST /admin/reload``."""
        self.write()
        return self._by_hand(self._apply())

    def roll_out(self) -> asyncio.Task[None]:
        """``launch.py --reload``."""
        self.write()
        return self._by_hand(self._roll_out())

    def start_aside(self, name: str) -> None:
        """``launch.py --only``."""
        config = self._read(self.file)
        for unit in units_of(config):
            if unit.name == name and not self.engines[name].runs:
                self.yard.wishes.kept[name] = DesiredState(name, Wanted.RUNNING, self.loop.time(), LAUNCHER)
                self._by_hand(self._start_aside(unit))

    async def _start_aside(self, unit: Unit) -> None:
        async with self._launching() as (launcher, _):
            with self._counted_early([unit.name]):
                await launcher.up([unit])

    @contextlib.asynccontextmanager
    async def _launching(self) -> AsyncIterator[tuple[YardLauncher, NextDoor]]:
        """A launcher at work, beside the gateway there is."""
        async with self.yard.alone:
            gateway = NextDoor(self.reload, self.fleet, self.arbiter)
            yield YardLauncher(self.yard, Room(gateway)), gateway

    @contextlib.contextmanager
    def _counted_early(self, names: Collection[str]) -> Iterator[None]:
        self.restarting = set(names)
        for name in names:
            self.engines[name].astray = True
        try:
            yield
        finally:
            self.restarting = set()

    async def _apply(self) -> None:
        await self.reload.apply()

    async def _roll_out(self) -> None:
        async with self._launching() as (launcher, gateway):
            config = self._read(self.file)
            units = units_of(config)
            steps = self.yard.steps(config, units)
            rollout = Rollout(config, launcher, gateway, self.yard.wishes, lambda _: None)
            await rollout.apply(None)
            wishes = [DesiredState(unit.name, Wanted.RUNNING, self.loop.time(), LAUNCHER) for unit in steps.start]
            await self.yard.wishes.put(*wishes)
            with self._counted_early([*steps.restart, *(unit.name for unit in steps.start)]):
                await rollout.carry_out(steps, units, launcher.close)

    def _by_hand(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        task.add_done_callback(lambda one: one.cancelled() or one.exception())
        self.by_hand.append(task)
        return task

    def state(self, name: str) -> State:
        return self.fleet.instances[name].state

    @property
    def awake(self) -> set[str]:
        return {name for name, one in self.fleet.instances.items() if one.state is State.READY}

    @property
    def told(self) -> list[Event]:
        return list(self.fleet.journal.recent)

    def choose(self, ready: Sequence[Instance]) -> Instance:
        return min(ready, key=lambda one: one.in_flight)

    # -- what must hold ------------------------------------------------------------------------------------------

    def over(self) -> dict[str, int]:
        """What the books have more than there is, by place."""
        books = self.arbiter.books()
        return {place: -size for place, size in books.free.items() if size < 0}

    @property
    def instances(self) -> Collection[Instance]:
        """All that may have a request: those in the configuration, and those that have left it."""
        asked = (client.instance for client in self.clients if client.instance is not None)
        return {*self.fleet.instances.values(), *self.live.pools, *asked}

    def check(self) -> None:
        """What holds at every moment."""
        assert not self.wrong, self.wrong[0]
        for name, engine in self.engines.items():
            assert engine.wrong == [], (name, engine.steps.happened[-9:], self.told[-12:])
            assert name in self.arbiter.holders or not self.yard.runs(name), f"nobody counts {name}"
        flying = [client.instance for client in self.clients if client.phase == "in flight"]
        miscounted = {one.name: one.in_flight for one in self.instances if one.in_flight != flying.count(one)}
        assert not miscounted, miscounted
        for replicas in self.fleet.models.values():
            waiting = [one for one in self.clients if one.phase == "waiting" and one.replicas is replicas]
            assert replicas.waiting == len(waiting)
        assert self.live.pools.keys() >= set(self.fleet.instances.values())
        self._check_books()
        self._check_groups()

    def _check_books(self) -> None:
        books = self.arbiter.books()
        allowed: dict[str, int] = {}
        for name, instance in self.arbiter.holders.items():
            engine = self.engines[name]
            self._settle_astray(engine, instance)
            state = instance.engine_state
            ends = state is State.FALLING_ASLEEP and not instance.level  # its process
            unsure = state in (State.UNKNOWN, State.FAILED) or ends  # it may be taken for awake and asleep
            if engine.astray or unsure:
                for place, size in books.held[name].items():
                    allowed[place] = allowed.get(place, 0) + size
            if not engine.astray:
                for place, size in engine.memory.items():
                    assert size <= books.held[name].get(place, 0), (
                        f"{name} ({instance.state}) holds more of {place} than is written: {engine.steps.happened[-9:]}"
                    )
        for place, size in self.over().items():
            assert size <= allowed.get(place, 0), f"{place} is overcommitted: {books.held}"

    def _settle_astray(self, engine: TenantEngine, instance: Instance) -> None:
        """The fleet knows of it all again, and it fits."""
        if engine.name in self.restarting:
            engine.astray = True
            return
        if instance.state is State.ASLEEP or not engine.asleep:
            engine.meddled = False
        if instance.state is State.STOPPED and not engine.runs:
            engine.astray = False
        known = {State.READY: False, State.ASLEEP: True}.get(instance.state)
        if engine.asleep and instance.level not in (0, engine.level):
            return  # woken and put to sleep by somebody else between two looks
        fits = not self.over() and (
            engine.asleep or not (self._awake_rivals(instance) or self._is_rival_waking(instance))
        )
        if engine.there and engine.up and known is engine.asleep and fits:
            engine.astray = False

    def _awake_rivals(self, instance: Instance) -> list[TenantEngine]:
        rivals = self.config.rivals.get(instance.config.model, frozenset())
        others = [self.engines[one.name] for model in rivals for one in self.config.instances_of(model)]
        return [one for one in others if one.there and not one.asleep]

    def _is_rival_waking(self, instance: Instance) -> bool:
        rivals = self.config.rivals.get(instance.config.model, frozenset())
        return any(
            self.fleet.instances[one.name].state is State.WAKING
            for model in rivals
            for one in self.config.instances_of(model)
        )

    def _check_groups(self) -> None:
        for name, instance in self.fleet.instances.items():
            engine = self.engines[name]
            if engine.there and not engine.asleep and not engine.astray:
                rivals = self._awake_rivals(instance)
                assert [one.name for one in rivals if not one.astray] == [], f"awake beside {name}"
