"""An engine of a house: it does what it is told, to the end, and notes whatever must not happen to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol

from controller.fleet.origin import Origin
from controller.residency.footprint import Footprint
from controller.residency.memory import NOTHING, Memory, larger
from runtime.engines.base import EngineTimeout, EngineUnreachable, Sight
from runtime.engines.spec import Capabilities
from tests.controller.fleet.stage import FakeEngine, Steps, refused, unreachable


class Guest(Protocol):
    """A request in an engine."""

    def breaks(self) -> None: ...


class TenantEngine(FakeEngine):
    """``serving``: the requests it has. ``lasts``: seconds each step takes. ``astray``: not all that happened to it is
    known to the fleet. ``meddled``: somebody else has put it to sleep (``meddled_at``), and nobody here has noticed.

    ``bare``: it may lack its adapters.
    ``process`` is there (``runs``), and listens (``there``); a new one does not at once. ``told``: the one that the
    gateway knows. Between its question and its call an engine may start anew unseen.
    """

    def __init__(
        self,
        name: str,
        footprint: Footprint,
        clock: Callable[[], float],
        *,
        tells: bool,
        levels: tuple[int, ...] = (1, 2),
        runs: bool = True,
    ) -> None:
        super().__init__(Steps(), tells=tells)
        self.capabilities = replace(self.capabilities, levels=levels)
        self.clock = clock
        self.name = name
        self.footprint = footprint
        self.serving: set[Guest] = set()
        self.lasts: dict[str, float] = {}
        self.faults: list[str] = []
        self.level = 0
        self.runs = self.there = runs
        self.bare = False
        self.astray = False
        self.meddled, self.meddled_at = False, float("-inf")
        self.falling = 0
        self.at_work: set[asyncio.Task[None]] = set()
        self.told: str | None = None
        self._turn = asyncio.Lock()
        self._processes = 100

    @property
    def process(self) -> str:
        return f"{self.name}:{self._processes}"

    @property
    def wrong(self) -> list[str]:
        return [what for what in self.steps.happened if what.startswith(("died", "reached"))]

    @property
    def memory(self) -> Memory:
        """What it takes now."""
        if not self.runs:
            return NOTHING
        if self.asleep:
            return self.footprint.at(self.level)
        return larger(self.footprint.awake, self.footprint.at(self.falling)) if self.falling else self.footprint.awake

    async def _answers(self, step: str, note: str = "") -> None:
        process = self.process
        await self.steps.take(step, note)
        if seconds := self.lasts.get(step):
            await asyncio.sleep(seconds)
        if not self.there or self.process != process:
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
        try:
            return Sight(await self.healthy(), await self.is_asleep())
        except EngineUnreachable:  # it has just gone
            return Sight(False, None)

    async def sleep(self, level: int) -> None:
        await self._whole(self._sleep(level))

    async def wake(self, level: int | None) -> None:
        await self._whole(self._wake(level))

    async def _whole(self, work: Coroutine[Any, Any, None]) -> None:
        """One after the other, and to the end: an engine does not notice that a gateway was stopped."""
        process = self.process

        async def in_turn() -> None:
            async with self._turn:
                if self.process != process:
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
            if not self.asleep:
                self.asleep, self.level, self.bare = True, level, True
        if fault:
            raise EngineTimeout(self.name, "POST /sleep", "no answer")

    async def _wake(self, level: int | None) -> None:
        fault = self._fault("wake")
        await self._answers("wake", f"wake {level}")
        if fault == "refused":
            raise refused()
        if fault != "late, undone":
            if not self.asleep and not self.capabilities.tells_sleep and self.told == self.process:
                self.steps.happened.append("died: resumed while awake")
            self.asleep = self.meddled = False
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

    async def dress(self) -> None:
        """Give it its adapters. One that takes none is served nevertheless."""
        with contextlib.suppress(EngineUnreachable):
            await self._answers("gate")
        self.bare = False

    # -- its process ---------------------------------------------------------------------------------------------

    def launch(self) -> None:
        """A new process, unless there is one. It loads, and listens when it has."""
        if self.runs:
            return
        self._processes += 1
        self.runs, self.asleep, self.up, self.bare = True, False, True, True
        asyncio.get_running_loop().call_later(self.lasts.get("start", 0.0), self._has_loaded, self.process)

    def _has_loaded(self, process: str) -> None:
        if self.runs and self.process == process:
            self.there = True

    def end(self) -> None:
        """Its process, and whatever is in it, and what it was still told: that is of no process that comes."""
        self._processes += 1
        self.runs = self.there = self.asleep = self.meddled = False
        self.falling = 0
        for guest in list(self.serving):
            guest.breaks()
        self.serving.clear()
        self.running = 0

    # -- what befalls it -----------------------------------------------------------------------------------------

    def crash(self) -> None:
        self.end()
        self.astray = True

    def come_back(self) -> None:
        """As a new process, or well again. Awake, whether there is room for it or not."""
        if not self.runs:
            self._processes += 1
        self.runs = self.there = self.up = True

    def fall_ill(self) -> None:
        """It is there, and says that it is not well."""
        self.up = False

    def is_woken(self) -> None:
        """By somebody else."""
        if self.asleep:
            self.asleep, self.meddled, self.astray = False, False, True

    def is_put_to_sleep(self, level: int) -> None:
        """By somebody else, whatever it has."""
        if self.there and not self.asleep:
            self.asleep, self.level, self.meddled, self.astray = True, level, True, True
            self.meddled_at = self.clock()


class NextGateway(FakeEngine):
    """What a gateway that leaves passes its requests on to."""

    def __init__(self) -> None:
        super().__init__(Steps(), tells=False)
        self.capabilities = Capabilities(sleep=False, tells_sleep=False, adapters=False)

    async def is_asleep(self) -> bool | None:
        return False


class NoOrigin(Origin):
    """Of what runs elsewhere."""

    def __init__(self) -> None: ...

    async def process(self) -> str | None:
        return None

    async def pids(self) -> frozenset[int]:
        return frozenset()

    async def starting(self) -> bool:
        return False

    async def was_ready(self) -> None: ...


class TenantOrigin(Origin):
    """``launched``: name -> the process that was started for it."""

    def __init__(self, engine: TenantEngine, launched: dict[str, str]) -> None:
        self._engine = engine
        self._launched = launched
        self._ready: str | None = None

    async def process(self) -> str | None:
        await self._engine.steps.take("process")
        self._engine.told = self._engine.process if self._engine.there else None
        return self._engine.told

    async def pids(self) -> frozenset[int]:
        return frozenset()

    async def starting(self) -> bool:
        await asyncio.sleep(0)
        process = self._launched.get(self._engine.name)
        return process is not None and process != self._ready and self._engine.runs and self._engine.process == process

    async def was_ready(self) -> None:
        await asyncio.sleep(0)
        self._ready = self._launched.get(self._engine.name)
