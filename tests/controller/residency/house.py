"""A fleet with its arbiter, in virtual time: all real but the engines, which note whatever must not happen to them.

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
import math
import random
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from benchmarks.virtual_time import VirtualLoop
from controller.config.load import load
from controller.config.model import Instance as InstanceConfig
from controller.fleet import fleet as fleet_module
from controller.fleet.errors import Unavailable
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.journal import Event
from controller.fleet.state import State
from controller.residency.arbiter import Arbiter, arbitrated
from controller.residency.footprint import Footprint
from controller.residency.memory import HOST, NOTHING, Memory, larger
from runtime.engines.base import Engine, EngineTimeout, Sight
from state.launches import Launch, Launches
from state.sleep_marks import Phase, SleepMark
from tests.controller.fleet.stage import FakeEngine, FakeMarks, FakeOrigin, Steps, refused, unreachable

SETTLES = 200
"""Rounds in which whatever can happen at once has happened."""


def tenant(name: str, size: float, **more: Any) -> dict[str, Any]:
    """One instance, as in the YAML. It keeps 1 GiB asleep."""
    entry = {"name": name, "model": name, "engine": "sim", "url": f"http://{name}.invalid:1", "gpus": [0]}
    return {**entry, "engine_args": ["--enable-sleep-mode"], "memory_gib": size, "asleep_memory_gib": 1, **more}


class NoLaunches(Launches):
    def __init__(self) -> None: ...

    async def all(self) -> Mapping[str, Launch]:
        return {}


class Asked(FakeOrigin):
    """``told``: what the gateway knows. Between its question and its call an engine may start anew unseen."""

    told: str | None = None

    async def process(self) -> str | None:
        self.told = await super().process()
        return self.told


class TenantEngine(FakeEngine):
    """``serving``: the requests it has. ``lasts``: seconds each step takes. ``astray``: not all that happened to it is
    known to the fleet."""

    def __init__(self, name: str, footprint: Footprint, *, tells: bool) -> None:
        super().__init__(Steps(), tells=tells)
        self.name = name
        self.footprint = footprint
        self.origin = Asked(Steps())
        self.serving: set[Client] = set()
        self.lasts: dict[str, float] = {}
        self.faults: list[str] = []
        self.level = 0
        self.there = True
        self.astray = False
        self.falling = 0
        self.at_work: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._processes = 100
        self.origin.now = f"{name}:{self._processes}"

    @property
    def wrong(self) -> list[str]:
        return [what for what in self.steps.happened if what.startswith(("died", "reached"))]

    @property
    def memory(self) -> Memory:
        """What it takes now."""
        if not self.there:
            return NOTHING
        if self.asleep:
            return self.footprint.at(self.level)
        return larger(self.footprint.awake, self.footprint.at(self.falling)) if self.falling else self.footprint.awake

    async def _answers(self, step: str, note: str = "") -> None:
        process = self.origin.now
        await self.steps.take(step, note)
        if seconds := self.lasts.get(step):
            await asyncio.sleep(seconds)
        if not self.there or self.origin.now != process:
            raise unreachable()

    async def busy(self) -> int | None:
        await self._answers("busy")
        return len(self.serving) + self.running

    async def is_asleep(self) -> bool | None:
        await self._answers("is_asleep")
        return self.asleep if self.capabilities.tells_sleep else None

    async def healthy(self) -> bool | None:
        await self.steps.take("healthy")
        return self.there and self.up

    async def look(self) -> Sight:
        self.looks += 1
        if not self.there or not self.up:
            return Sight(False, None)
        return Sight(await self.healthy(), await self.is_asleep())

    async def sleep(self, level: int) -> None:
        await self._whole(self._sleep(level))

    async def wake(self, level: int | None) -> None:
        await self._whole(self._wake(level))

    async def _whole(self, work: Coroutine[Any, Any, None]) -> None:
        """One after the other, and to the end: an engine does not notice that a gateway was stopped."""
        process = self.origin.now

        async def in_turn() -> None:
            async with self._turn:
                if self.origin.now != process:
                    work.close()
                    raise unreachable()
                try:
                    await work
                finally:
                    self.falling = 0

        task = asyncio.create_task(in_turn())
        self.at_work.add(task)
        task.add_done_callback(self.at_work.discard)
        task.add_done_callback(lambda one: one.cancelled() or one.exception())
        await asyncio.shield(task)

    async def _sleep(self, level: int) -> None:
        self.falling = 0 if self.asleep else level
        fault = self._fault("sleep")
        await self._answers("sleep", f"sleep {level}")
        if fault != "late, undone":
            if self.serving or self.running:
                self.steps.happened.append("died: released while busy")
            self.asleep, self.level = True, level
        if fault:
            raise EngineTimeout(self.name, "POST /sleep", "no answer")

    async def _wake(self, level: int | None) -> None:
        fault = self._fault("wake")
        await self._answers("wake", f"wake {level}")
        if fault == "refused":
            raise refused()
        if fault != "late, undone":
            if not self.asleep and not self.capabilities.tells_sleep and self.origin.told == self.origin.now:
                self.steps.happened.append("died: resumed while awake")
            self.asleep = False
        if fault:
            raise EngineTimeout(self.name, "POST /wake_up", "no answer")

    def _fault(self, step: str) -> str:
        """The next one that is to happen to this step."""
        for fault in self.faults:
            if fault.startswith(step):
                self.faults.remove(fault)
                self.astray = True
                return fault.removeprefix(f"{step} ")
        return ""

    # -- what befalls it -----------------------------------------------------------------------------------------

    def crash(self) -> None:
        self.there, self.asleep, self.astray = False, False, True
        for client in list(self.serving):
            client.breaks()
        self.serving.clear()
        self.running = 0

    def come_back(self) -> None:
        """As a new process, or well again. Awake, whether there is room for it or not."""
        if not self.there:
            self._processes += 1
            self.origin.now = f"{self.name}:{self._processes}"
        self.there, self.up = True, True

    def fall_ill(self) -> None:
        """It is there, and says that it is not well."""
        self.up, self.astray = False, True


class Client:
    """One request. ``outcome``: '' until it has one. ``phase``: where it is. ``lasts``: seconds; None: until told."""

    def __init__(self, house: House, model: str, seconds: float, lasts: float | None) -> None:
        self.house = house
        self.model = model
        self.lasts = lasts
        self.asked_at = house.loop.time()
        self.deadline = self.asked_at + seconds
        self.phase = "new"
        self.outcomes: list[str] = []
        self.reason = ""
        self.instance: Instance | None = None
        self.waited = 0.0
        self.answer: asyncio.Future[None] = house.loop.create_future()
        self.task = house.loop.create_task(self._run())

    @property
    def outcome(self) -> str:
        return ", ".join(self.outcomes)

    def finish(self) -> None:
        """Its answer is whole."""
        if not self.answer.done():
            self.answer.set_result(None)

    def breaks(self) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionResetError())

    def leave(self) -> None:
        if self.phase == "new":  # its task will never begin
            self.phase = "over"
            self.outcomes.append("left")
        self.task.cancel()

    async def _run(self) -> None:
        replicas = self.house.fleet.models[self.model]
        try:
            self.phase = "waiting"
            among = replicas.instances
            try:
                self.instance = replicas.try_acquire(among, self.house.choose)
                if self.instance is None:
                    self.instance = await replicas.acquire(among, self.house.choose, self.deadline)
            finally:
                self.phase = "over"
                self.waited = self.house.loop.time() - self.asked_at
                if self.house.loop.time() > self.deadline + 0.01:
                    self.house.wrong.append(f"{self.model} was made to wait beyond its deadline")
        except Unavailable as refusal:
            self.reason = str(refusal)
            self.outcomes.append(type(refusal).__name__)
        except asyncio.CancelledError:
            self.outcomes.append("left")
        else:
            await self._be_served(self.instance)

    async def _be_served(self, instance: Instance) -> None:
        self.phase = "in flight"
        engine, abandoned = self.house.engines[instance.name], False
        try:
            await asyncio.sleep(0.001)  # it goes over a wire
            if not engine.there:
                raise ConnectionRefusedError
            if engine.asleep:
                engine.steps.happened.append("reached asleep")
            engine.serving.add(self)
            if self.lasts is not None:
                self.house.loop.call_later(self.lasts, self.finish)
            await self.answer
            instance.answered()
            self.outcomes.append("served")
        except asyncio.CancelledError:
            abandoned = True
            self.outcomes.append("left")
            if self in engine.serving:
                engine.running += 1  # an engine goes on for a while
                self.house.loop.call_later(0.3, self._given_up, engine, engine.origin.now)
        except ConnectionError:
            self.outcomes.append("broke")
            self.house.fleet.models[self.model].look_at(instance)
        finally:
            engine.serving.discard(self)
            self.phase = "over"
            instance.end(abandoned=abandoned)

    @staticmethod
    def _given_up(engine: TenantEngine, process: str | None) -> None:
        if engine.running and engine.origin.now == process and engine.there:
            engine.running -= 1


class House:
    """``gpus``, ``host``: GiB. ``sections``: whatever else the YAML says."""

    def __init__(
        self,
        tenants: Sequence[Mapping[str, Any]],
        gpus: Mapping[int, float],
        *,
        host: float | None = None,
        silent: Sequence[str] = (),
        asleep: Sequence[str] = (),
        **sections: Any,
    ) -> None:
        self.loop = VirtualLoop()
        self.wrong: list[str] = []
        self.clients: list[Client] = []
        self.by_hand: list[asyncio.Task[None]] = []
        self.chance = random.Random(1)
        sections.setdefault("sleep_manager", {"min_sleep_duration": 0, "wake_timeout_seconds": 60})
        sections.setdefault("residency", {"min_awake_seconds": 0})
        sections["gpus"] = {number: {"memory_gib": size} for number, size in gpus.items()}
        if host is not None:
            sections["host"] = {"memory_gib": host}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "torpor.yaml"
            file.write_text(yaml.safe_dump({**sections, "instances": [dict(one) for one in tenants]}), encoding="utf-8")
            self.config = load(file, {})
        self.engines = {
            one.name: TenantEngine(one.name, one.footprint or Footprint(NOTHING), tells=one.name not in silent)
            for one in self.config.instances
        }
        self.marks = FakeMarks(Steps())
        free = self.config.capacity.get(HOST, math.inf)
        for name in asleep:
            engine = self.engines[name]
            taken = engine.footprint.at(1).get(HOST, 0)
            engine.asleep, engine.level = True, 1 if taken <= free else 2
            free -= taken if engine.level == 1 else 0
            self.marks.kept[name] = SleepMark(name, Phase.ASLEEP, engine.level, "manual", 0.0, engine.origin.now)
        self.fleet: Fleet
        self.arbiter: Arbiter
        self._open = contextlib.AsyncExitStack()
        self.open()

    # -- the gateway ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the gateway, over the engines as they are."""
        self.loop.run_until_complete(self._opening())

    def close(self) -> None:
        """Stop it. Its clients are gone; its engines are not, and do what they were told."""
        for client in self.clients:
            client.leave()
        for task in self.by_hand:
            task.cancel()
        self.loop.run_until_complete(self._open.aclose())
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
        self.loop.end()

    async def _opening(self) -> None:
        def connect(one: InstanceConfig) -> Engine:
            return self.engines[one.name]

        def origin_of(one: InstanceConfig, _: Launches) -> FakeOrigin:
            return self.engines[one.name].origin

        with mock.patch.object(fleet_module, "Origin", origin_of):
            clock = self.loop.time
            self.fleet = Fleet(self.config, connect, self.marks, NoLaunches(), clock, clock)
        self._open = contextlib.AsyncExitStack()
        self.arbiter = await self._open.enter_async_context(arbitrated(self.fleet))
        await self._open.enter_async_context(self.fleet.watched())

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

    def check(self) -> None:
        """What holds at every moment."""
        assert self.wrong == []
        books = self.arbiter.books()
        allowed: dict[str, int] = {}
        for name, engine in self.engines.items():
            instance = self.fleet.instances[name]
            assert engine.wrong == [], (name, engine.steps.happened[-9:], self.told[-12:])
            assert instance.in_flight == sum(
                one.instance is instance and one.phase == "in flight" for one in self.clients
            )
            self._settle_astray(engine, instance)
            if engine.astray:
                for place, size in books.held[name].items():
                    allowed[place] = allowed.get(place, 0) + size
            else:
                for place, size in engine.memory.items():
                    assert size <= books.held[name].get(place, 0), (
                        f"{name} ({instance.state}) holds more of {place} than is written: {engine.steps.happened[-9:]}"
                    )
        for place, size in self.over().items():
            assert size <= allowed.get(place, 0), f"{place} is overcommitted: {books.held}"
        for model, replicas in self.fleet.models.items():
            assert replicas.waiting == sum(one.model == model and one.phase == "waiting" for one in self.clients)
        self._check_groups()

    def _settle_astray(self, engine: TenantEngine, instance: Instance) -> None:
        """The fleet knows of it all again, and it fits."""
        known = {State.READY: False, State.ASLEEP: True}.get(instance.state)
        fits = not self.over() and (engine.asleep or not self._awake_rivals(instance))
        if engine.there and engine.up and known is engine.asleep and fits:
            engine.astray = False

    def _awake_rivals(self, instance: Instance) -> list[TenantEngine]:
        rivals = self.config.rivals.get(instance.config.model, frozenset())
        others = [self.engines[one.name] for model in rivals for one in self.config.instances_of(model)]
        return [one for one in others if one.there and not one.asleep]

    def _check_groups(self) -> None:
        for name, engine in self.engines.items():
            if engine.there and not engine.asleep and not engine.astray:
                rivals = self._awake_rivals(self.fleet.instances[name])
                assert [one.name for one in rivals if not one.astray] == [], f"awake beside {name}"
