"""An instance on a stage: its engine, its marks and its process are fakes, and each of their steps can be held up.

stage = Stage()
held = stage.engine.hold("sleep")      # the next call of sleep stops here
asking = asyncio.create_task(stage.transitions.sleep("manual", 5))
await held.arrives()
...                                    # whatever happens meanwhile
held.go.set()
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping

from controller.config.model import Instance as InstanceConfig
from controller.config.model import SleepSettings
from controller.fleet.instance import Instance
from controller.fleet.origin import Origin
from controller.fleet.routes import Replicas
from controller.fleet.state import State
from controller.fleet.transitions import Transitions
from runtime.engines.base import AdapterSeen, EngineRefused, EngineTimeout, EngineUnreachable, Sight
from runtime.engines.spec import Capabilities, EngineSpec
from state.database import StateError
from state.sleep_marks import Phase, SleepMark, SleepMarks


class Held:
    """One step that stops when it is ``reached`` until it may ``go``."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def arrives(self) -> None:
        async with asyncio.timeout(5):
            await self.reached.wait()


class Steps:
    """What happened, in order, and what is to be held up or to go wrong: step -> in its next calls."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self._held: dict[str, list[Held]] = defaultdict(list)
        self._holding: list[Held] = []
        self._wrong: dict[str, list[Exception]] = defaultdict(list)

    def hold(self, step: str) -> Held:
        held = Held()
        self._held[step].append(held)
        return held

    def let_all_go(self) -> None:
        """Nothing is held up any more."""
        self._held.clear()
        while self._holding:
            self._holding.pop().go.set()

    def fail(self, step: str, *errors: Exception) -> None:
        self._wrong[step].extend(errors)

    async def take(self, step: str, note: str = "") -> None:
        """Note the step, wait as long as it is held up, then fail if it is to fail."""
        if note:
            self.happened.append(note)
        await asyncio.sleep(0)  # as whatever goes over a wire
        if self._held[step]:
            held = self._held[step].pop(0)
            self._holding.append(held)
            held.reached.set()
            await held.go.wait()
        if self._wrong[step]:
            raise self._wrong[step].pop(0)


class FakeEngine:
    """An engine that does what it is told. ``tells``: it can be asked whether it sleeps, as vLLM can and SGLang cannot.

    Strict as SGLang: released while busy or resumed while awake, it notes that it died.
    """

    def __init__(self, steps: Steps, *, tells: bool) -> None:
        self.capabilities = Capabilities(sleep=True, tells_sleep=tells, adapters=False)
        self.steps = steps
        self.asleep = False
        self.up: bool | None = True
        self.running = 0
        self.work: float | None = 0.0
        self.looks = 0

    def hold(self, step: str) -> Held:
        return self.steps.hold(step)

    async def healthy(self) -> bool | None:
        await self.steps.take("healthy")
        return self.up

    async def busy(self) -> int | None:
        await self.steps.take("busy")
        return self.running

    async def pulse(self) -> float | None:
        await self.steps.take("pulse")
        return self.work

    async def sleep(self, level: int) -> None:
        await self.steps.take("sleep", f"sleep {level}")
        if self.running:
            self.steps.happened.append("died: released while busy")
        self.asleep = True

    async def wake(self, level: int | None) -> None:
        await self.steps.take("wake", f"wake {level}")
        if not self.asleep and not self.capabilities.tells_sleep:
            self.steps.happened.append("died: resumed while awake")
        self.asleep = False

    async def is_asleep(self) -> bool | None:
        await self.steps.take("is_asleep")
        return self.asleep if self.capabilities.tells_sleep else None

    async def look(self) -> Sight:
        self.looks += 1
        return Sight(await self.healthy(), await self.is_asleep())

    def adapter_model(self, name: str) -> str:
        return name

    async def bases(self) -> tuple[str, ...]:
        return ()

    async def adapters(self) -> Mapping[str, AdapterSeen]:
        return {}

    async def load_adapter(self, name: str, path: str, *, replace: bool = False) -> str:
        return ""

    async def unload_adapter(self, name: str) -> str:
        return ""

    async def metrics(self) -> str:
        return ""


class FakeMarks(SleepMarks):
    """Marks in memory. ``broken``: it cannot be written."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.kept: dict[str, SleepMark] = {}
        self.broken = False

    async def all(self) -> Mapping[str, SleepMark]:
        return dict(self.kept)

    async def put(self, mark: SleepMark) -> None:
        await self.steps.take("put", f"mark {mark.phase}")
        if self.broken:
            raise StateError("the state database cannot be written: disk full")
        self.kept[mark.instance] = mark

    async def clear(self, instance: str) -> None:
        await self.steps.take("clear", "no mark")
        if self.broken:
            raise StateError("the state database cannot be written: disk full")
        self.kept.pop(instance, None)


class FakeOrigin(Origin):
    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.now: str | None = "1:100"
        self.family = frozenset({1, 2})
        self.launching = False

    async def process(self) -> str | None:
        await self.steps.take("process")
        return self.now

    async def pids(self) -> frozenset[int]:
        return self.family

    async def starting(self) -> bool:
        return self.launching

    async def was_ready(self) -> None:
        self.launching = False


class Stage:
    """One instance, ready. ``tells=False`` makes its engine one that cannot be asked."""

    def __init__(self, *, tells: bool = True, name: str = "one", state: State = State.READY, **sleep: object) -> None:
        self.steps = Steps()
        self.engine = FakeEngine(self.steps, tells=tells)
        self.marks = FakeMarks(self.steps)
        self.origin = FakeOrigin(self.steps)
        self.instance = Instance(config_of(name, **{"min_sleep_duration": 0, **sleep}), self.engine)
        self.transitions = Transitions(self.instance, self.marks, self.origin)
        if state is State.READY:
            self.instance.enter_ready()

    @property
    def state(self) -> State:
        return self.instance.state

    @property
    def happened(self) -> list[str]:
        return self.steps.happened

    def mark(self, phase: Phase = Phase.ASLEEP, process: str | None = "1:100", level: int = 1) -> SleepMark:
        """A mark of this instance, as an earlier gateway left it."""
        mark = SleepMark(self.instance.name, phase, level, "manual", self.instance.wall(), process)
        self.marks.kept[mark.instance] = mark
        return mark

    async def fall_asleep(self) -> None:
        await self.transitions.sleep("manual", 5)
        assert self.state is State.ASLEEP
        self.happened.clear()


def replicas(*stages: Stage) -> Replicas:
    return Replicas("model", [stage.transitions for stage in stages])


def config_of(name: str, **sleep: object) -> InstanceConfig:
    spec = EngineSpec(name, "sim", "model", "127.0.0.1", 1, "http://127.0.0.1:1", ("model",))
    return InstanceConfig(name, "model", ("model",), spec, SleepSettings.model_validate(sleep), name)


def refused(status: int = 500) -> EngineRefused:
    return EngineRefused("one", "POST /call", status, "no")


def late() -> EngineTimeout:
    return EngineTimeout("one", "POST /call", "no answer")


def unreachable() -> EngineUnreachable:
    return EngineUnreachable("one", "POST /call", "connection refused")
