"""How the state of one instance is found out: at the start, after a failure, and when somebody else changed it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from controller.fleet.doubt import Doubt
from controller.fleet.instance import Instance
from controller.fleet.journal import Happened
from controller.fleet.keeper import Keeper, NoKeeper
from controller.fleet.marks import Marks
from controller.fleet.origin import Origin
from controller.fleet.state import Hold, State
from runtime.engines.base import Engine, EngineError, EngineUnreachable
from state.sleep_marks import Phase, SleepMark, SleepMarks

log = logging.getLogger(__name__)

Gate = Callable[[Instance, bool], Awaitable[None]]
"""What an engine that is up must have been given before it is ready; the second value: it was woken, or is new."""


async def open_gate(instance: Instance, woken: bool) -> None:
    """Lets everybody in."""


@dataclass(frozen=True, slots=True)
class Wake:
    """One that is under way. ``level``: from which; 0 if its process is started. ``began``: on the instance's clock."""

    cause: str
    level: int
    began: float

    def end(self, instance: Instance) -> None:
        seconds = instance.clock() - self.began
        instance.wakes["ok"] += 1
        instance.remember_wake(self.level, seconds)
        instance.tell(Happened.WOKEN, cause=self.cause, seconds=seconds, level=self.level)

    def fail(self, instance: Instance, problem: str) -> None:
        instance.wakes["failed"] += 1
        instance.tell(Happened.WAKE_FAILED, cause=self.cause, detail=problem)


def _alone() -> bool:
    return False


class Finding:
    """Holds the lock that keeps all that may change the instance apart.

    ``shared``: whether another gateway may have requests in the engine.
    """

    def __init__(self, instance: Instance, marks: SleepMarks, origin: Origin) -> None:
        self.instance = instance
        self.gate: Gate = open_gate
        self.shared: Callable[[], bool] = _alone
        self.keeper: Keeper = NoKeeper()
        self._marks = Marks(instance, marks, origin)
        self._origin = origin
        self._doubt = Doubt(instance)
        self._lock = asyncio.Lock()
        self._wake: Wake | None = None

    @property
    def under_way(self) -> bool:
        return self._lock.locked()

    @property
    def _engine(self) -> Engine:
        return self.instance.engine

    async def _settle(self) -> None:
        if self._lock.locked():
            return
        async with self._lock:
            await self._find_out()

    async def _find_out(self) -> None:
        instance = self.instance
        if not await self._engine.healthy():
            mark = await self._marks.own()
            gone = await self._forget_if_gone()
            before = None if gone else await self._slept(mark)
            if before is not None:
                instance.may_be(before)
            if before is None and await self._origin.starting():
                instance.enter_starting("it is starting")
            elif (rest := await self.keeper.rest(instance.name)) is not None:
                self._wake = None
                instance.enter_stopped(rest.cause, rest.hold)
            else:
                self._fails(f"no healthy answer from {instance.config.spec.base_url}", gone)
                instance.slept |= mark is not None and mark.phase is not Phase.WAKING
            return
        mark = await self._marks.find()
        try:
            asleep = await self._sleeps(mark)
        except EngineError as error:
            instance.enter_failed(str(error))
            return
        if asleep is None:
            instance.enter_failed("whether it sleeps cannot be found out")
        elif asleep:
            mark = replace(mark or self._marks.found_asleep(), phase=Phase.ASLEEP, process=await self._origin.process())
            await self._marks.confirm(mark)
            await self._origin.was_ready()
            instance.enter_asleep(mark)
        else:
            slept = mark is not None or instance.state is State.ASLEEP
            if slept:
                await self._marks.clear()
            await self._origin.was_ready()
            await self._let_in(woken=slept)

    async def _let_in(self, *, woken: bool) -> None:
        """Ready, once the gate has seen to it. A gate that breaks keeps nobody out."""
        try:
            await self.gate(self.instance, woken)
        except Exception:
            log.exception("what %s must have before it is ready could not be seen to", self.instance.name)
        self.instance.enter_ready()
        if self._wake is not None:
            self._wake.end(self.instance)
            self._wake = None

    def _wake_failed(self, problem: str) -> None:
        if self._wake is not None:
            self._wake.fail(self.instance, problem)
            self._wake = None

    def _fails(self, problem: str, gone: bool) -> None:
        self._wake_failed(problem)
        held = self.instance.hold is Hold.GIVEN_UP
        self.instance.enter_failed(self.instance.problem if held else problem)
        if gone:
            self.instance.is_gone()

    async def _forget_if_gone(self) -> bool:
        """Nobody listens there: whoever slept is gone, and the next one to listen is awake.

        On another machine nothing else tells that an engine was restarted.
        """
        try:
            await self._engine.busy()
        except EngineUnreachable:
            await self._marks.clear()
            return True
        except EngineError:
            pass
        return False

    async def _slept(self, mark: SleepMark | None) -> SleepMark | None:
        """The mark of the process that listens there: it has been ready before, if under another gateway."""
        if mark is None or mark.process is None or mark.process != await self._origin.process():
            return None
        return mark

    async def _sleeps(self, mark: SleepMark | None) -> bool | None:
        """Whether an engine that is up sleeps: by its own word, else by its mark."""
        asleep = await self._engine.is_asleep()
        if mark is None or (asleep is not None and mark.phase is Phase.ASLEEP):
            return bool(asleep)
        if is_another(await self._origin.process(), mark.process):
            return bool(asleep)
        if mark.phase is Phase.ASLEEP:
            return True
        self.instance.may_be(mark)
        return await self._doubt.finish(mark, asleep)

    async def _observe(self) -> bool:
        """Look at an instance that is ready or asleep, and correct the record if the engine says otherwise.

        Whether requests are stranded in an engine that somebody else has put to sleep.
        """
        instance = self.instance
        before = instance.since
        sight = await self._engine.look()
        healthy, asleep = sight.healthy, sight.asleep
        if healthy is None:
            return False  # too busy to answer: no news
        if healthy and asleep is None and instance.state is State.ASLEEP:
            asleep = not is_another(await self._origin.process(), instance.process)
        if self.under_way or instance.since != before:
            return False  # it has moved on meanwhile
        instance.looked_at = instance.clock()
        if instance.state is State.STOPPED:
            if healthy or await self._origin.starting():  # somebody else has started it
                await self._settle()
        elif not healthy:
            instance.enter_failed(f"no healthy answer from {instance.config.spec.base_url}")
            if await self._forget_if_gone() and instance.state is State.FAILED:
                instance.is_gone()
        elif instance.state is State.ASLEEP and asleep is False:
            log.warning("%s is awake, though nobody here woke it", instance.name)
            await self._settle()
        elif instance.state is State.READY and asleep:
            log.warning("%s is asleep, though nobody here put it to sleep", instance.name)
            stranded = instance.in_flight > 0
            instance.enter_asleep(self._marks.found_asleep())  # at once: nothing more is sent there
            await self._settle()  # which leaves a mark
            return stranded
        return False


def is_another(process: str | None, recorded: str | None) -> bool:
    """Whether the engine was restarted since its process was recorded; not if one of the two is unknown."""
    return process is not None and recorded is not None and process != recorded
