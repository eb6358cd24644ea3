"""Simulated engines on GPUs that are too small for all of them, under the gateway's real fleet, in virtual time."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import quantiles
from typing import Any

import yaml

from benchmarks.virtual_time import run
from benchmarks.visits import Model, Visit
from controller.config.load import load
from controller.config.model import Config
from controller.fleet.errors import FleetError, Unavailable
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.state import State
from controller.residency.arbiter import Arbiter
from controller.residency.decision import Resident, Wish
from runtime.engines.base import AdapterSeen, Engine, EngineRefused, Sight
from runtime.engines.spec import Capabilities
from state.launches import Launch, Launches
from state.sleep_marks import SleepMark, SleepMarks

ASLEEP_GIB = 1.0
PATIENCE = 60.0
"""Seconds that a client waits."""

CHECK_SECONDS = 5.0
"""How often it is looked for idle models, where there is a timeout."""

MOVING = frozenset({State.WAKING, State.FALLING_ASLEEP})


@dataclass(frozen=True, slots=True)
class Policy:
    """``arbiter``: who decides who leaves; None: nobody has to. ``idle_timeout``: asleep after so many seconds."""

    name: str
    arbiter: type[Arbiter] | None = None
    idle_timeout: float | None = None


@dataclass
class Outcome:
    """``waits``: seconds of each request served. ``steady``: of those that found their model awake while another one
    woke or fell asleep. ``hits``: served at once. ``failed``: refused, or not served in time."""

    policy: str
    requests: int = 0
    waits: list[float] = field(default_factory=list)
    steady: list[float] = field(default_factory=list)
    failed: int = 0
    hits: int = 0
    wakes: int = 0
    failed_wakes: int = 0

    @property
    def hit_rate(self) -> float:
        return self.hits / max(1, self.requests)

    @property
    def mean(self) -> float:
        return sum(self.waits) / max(1, len(self.waits))


def percentile(waits: Sequence[float], percent: int) -> float:
    return quantiles(waits, n=100, method="inclusive")[percent - 1] if len(waits) > 1 else 0.0


class LeastRecentlyUsed(Arbiter):
    """Whoever was used least lately leaves, whatever its wake will cost."""

    def _residents(self, wishes: Sequence[Wish]) -> list[Resident]:
        residents = sorted(super()._residents(wishes), key=lambda one: -one.idle_seconds)
        return [replace(one, priority=rank, wake_seconds=1.0, idle_seconds=0.0) for rank, one in enumerate(residents)]


class Gpu:
    """``free``: in whole tenths of a GiB, for sums of fractions are not exact."""

    def __init__(self, gib: float) -> None:
        self.free = tenths(gib)


def tenths(gib: float) -> int:
    return round(gib * 10)


class Sleeper:
    """An engine that takes its memory when it wakes, and fails where there is too little."""

    def __init__(self, model: Model, gpu: Gpu) -> None:
        self.capabilities = Capabilities(sleep=True, tells_sleep=True, adapters=False)
        self.running = 0
        self._model = model
        self._gpu = gpu
        self._asleep = True
        self._more = tenths(model.gib) - tenths(ASLEEP_GIB)
        gpu.free -= tenths(ASLEEP_GIB)

    async def healthy(self) -> bool | None:
        return True

    async def busy(self) -> int | None:
        return self.running

    async def pulse(self) -> float | None:
        return None

    async def sleep(self, level: int) -> None:
        await asyncio.sleep(self._model.sleep_seconds)
        self._asleep = True
        self._gpu.free += self._more

    async def wake(self, level: int | None) -> None:
        if self._more > self._gpu.free:
            raise EngineRefused(self._model.name, "POST /wake_up", 500, "CUDA out of memory")
        self._gpu.free -= self._more
        await asyncio.sleep(self._model.wake_seconds)
        self._asleep = False

    async def is_asleep(self) -> bool | None:
        return self._asleep

    async def look(self) -> Sight:
        return Sight(True, self._asleep)

    async def answer(self, seconds: float) -> None:
        assert not self._asleep
        self.running += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.running -= 1

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


class NoMarks(SleepMarks):
    def __init__(self) -> None: ...

    async def all(self) -> Mapping[str, SleepMark]:
        return {}

    async def put(self, mark: SleepMark) -> None: ...

    async def clear(self, instance: str) -> None: ...


class NoLaunches(Launches):
    def __init__(self) -> None: ...

    async def all(self) -> Mapping[str, Launch]:
        return {}


def simulate(policy: Policy, of: Sequence[Model], gib: float, days: Iterable[Iterable[Visit]]) -> Outcome:
    """The same models on a GPU of ``gib``; each day begins with all of them asleep."""
    outcome = Outcome(policy.name)
    for asked in days:
        run(_Day(policy, of, gib, outcome).pass_by(asked))
    return outcome


class _Day:
    def __init__(self, policy: Policy, of: Sequence[Model], gib: float, outcome: Outcome) -> None:
        gpu = Gpu(gib)
        self._policy = policy
        self._outcome = outcome
        self._engines = {one.name: Sleeper(one, gpu) for one in of}
        self._config = _config(of, gib, counted=policy.arbiter is not None)

    async def pass_by(self, asked: Iterable[Visit]) -> None:
        clock = asyncio.get_running_loop().time
        fleet = Fleet(self._config, self._connect, NoMarks(), NoLaunches(), clock, clock)
        async with self._open(fleet), asyncio.TaskGroup() as requests:
            for visit in asked:
                await asyncio.sleep(visit.at - clock())
                requests.create_task(self._ask(fleet, visit))
        self._outcome.wakes += sum(one.wakes["ok"] for one in fleet.instances.values())
        self._outcome.failed_wakes += sum(one.wakes["failed"] for one in fleet.instances.values())

    def _connect(self, config: Any) -> Engine:
        return self._engines[config.name]

    @asynccontextmanager
    async def _open(self, fleet: Fleet) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for one in fleet.transitions.values():
                stack.push_async_callback(one.aclose)
                await one.settle()
            if self._policy.arbiter is not None:
                arbiter = self._policy.arbiter(fleet)
                fleet.put_in_charge(arbiter)
                stack.push_async_callback(arbiter.aclose)
            if self._policy.idle_timeout is not None:
                idling = asyncio.create_task(self._put_idle_ones_to_sleep(fleet, self._policy.idle_timeout))
                stack.callback(idling.cancel)
            yield

    async def _put_idle_ones_to_sleep(self, fleet: Fleet, seconds: float) -> None:
        def is_idle(one: Instance) -> bool:
            return one.in_flight == 0 and one.clock() - max(one.used_at, one.ready_since) > seconds

        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for name, one in fleet.instances.items():
                if one.state is State.READY and is_idle(one):
                    try:
                        await fleet.transitions[name].sleep("idle", 1.0)
                    except FleetError:
                        pass  # it was asked again

    async def _ask(self, fleet: Fleet, visit: Visit) -> None:
        outcome, replicas = self._outcome, fleet.models[visit.model]
        clock = asyncio.get_running_loop().time
        outcome.requests += 1
        began = clock()
        was_awake = any(one.state is State.READY for one in replicas.instances)
        others_move = any(one.state in MOVING for one in fleet.instances.values())
        try:
            instance = replicas.try_acquire(replicas.instances, _first)
            if instance is None:
                instance = await replicas.acquire(replicas.instances, _first, began + PATIENCE)
        except Unavailable:
            outcome.failed += 1
            return
        waited = clock() - began
        outcome.waits.append(waited)
        outcome.hits += waited == 0
        if was_awake and others_move:
            outcome.steady.append(waited)
        try:
            await self._engines[instance.name].answer(visit.lasts)
        finally:
            instance.end()


def _first(ready: Sequence[Instance]) -> Instance:
    return ready[0]


def _config(of: Sequence[Model], gib: float, *, counted: bool) -> Config:
    """``counted``: with figures. Without any nobody has to leave."""
    written: dict[str, Any] = {"sleep_manager": {"min_sleep_duration": 0, "wake_timeout_seconds": PATIENCE}}
    if counted:
        written["gpus"] = {0: {"memory_gib": gib}}
    written["instances"] = [_entry(one, counted) for one in of]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "torpor.yaml"
        file.write_text(yaml.safe_dump(written), encoding="utf-8")
        return load(file, {})


def _entry(one: Model, counted: bool) -> dict[str, Any]:
    figures = {"gpus": [0], "memory_gib": one.gib, "asleep_memory_gib": ASLEEP_GIB} if counted else {}
    return {
        "name": one.name,
        "model": one.name,
        "engine": "sim",
        "url": f"http://{one.name}.invalid:1",
        "engine_args": ["--enable-sleep-mode"],
        "sleep_manager": {"level": one.level},
        **figures,
    }
