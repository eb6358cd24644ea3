"""How one instance falls asleep, wakes, and is found again after a restart.

Each is single-flight: it runs in a task of its own that outlives whoever asked for it, and others join it. One lock
keeps them apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from controller.fleet.errors import Busy, CalledOff, EngineFailed, NotPossible, TransitionRefused
from controller.fleet.instance import Drain, Instance
from controller.fleet.marks import Marks
from controller.fleet.origin import Origin
from controller.fleet.single_flight import SingleFlight
from controller.fleet.state import State
from runtime.engines.base import EngineError, EngineRefused, EngineTimeout, EngineUnreachable, NotSupported
from state.sleep_marks import Phase, SleepMark, SleepMarks

log = logging.getLogger(__name__)

UNSETTLED = frozenset({State.FALLING_ASLEEP, State.WAKING, State.UNKNOWN, State.FAILED})

DOUBT_TRIES, DOUBT_PAUSE = 4, 1.0
ABANDONED_SECONDS = 10.0
"""An engine may run on for a request whose client has left: SGLang was seen to do so for four seconds."""

BUSY_PAUSE = 0.1

Gate = Callable[[Instance, bool], Awaitable[None]]
"""What an engine that is up must have been given before it is ready; the second value: it was woken, or is new."""


async def open_gate(instance: Instance, woken: bool) -> None:
    """Lets everybody in."""


class Transitions:
    def __init__(self, instance: Instance, marks: SleepMarks, origin: Origin) -> None:
        self.instance = instance
        self._engine = instance.engine
        self._marks = Marks(instance, marks, origin)
        self._origin = origin
        self._lock = asyncio.Lock()
        self._flights = SingleFlight(self.instance.name, self._broke)
        self.gate: Gate = open_gate

    @property
    def under_way(self) -> bool:
        return self._lock.locked()

    async def aclose(self) -> None:
        """Stop what is under way. Its mark tells the next gateway what the engine may have been told."""
        await self._flights.aclose()

    # -- sleep ---------------------------------------------------------------------------------------------------

    async def sleep(
        self,
        cause: str,
        drain_seconds: float,
        level: int | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Put it to sleep once it has drained. Nothing happens if it sleeps already.

        Raises ``CalledOff`` when a request came first, or when it is not ``wanted`` any more as it begins, and ``Busy``
        when it did not drain in time (it serves on in all these cases), ``NotPossible``, or ``EngineFailed``.
        """
        instance = self.instance
        if instance.state is State.ASLEEP:
            return
        if not self._engine.capabilities.sleep:
            kind = instance.config.spec.kind
            raise NotPossible(f"{instance.name!r} cannot sleep: an engine of kind {kind!r} has no way to")
        if self._flights.running("sleep") is None and instance.state is not State.READY:
            raise NotPossible(f"{instance.name!r} is {instance.state}, not ready to sleep")
        level = level or instance.config.sleep.level
        await self._flights.join("sleep", lambda: self._fall_asleep(cause, drain_seconds, level, wanted))

    async def _fall_asleep(self, cause: str, drain_seconds: float, level: int, wanted: Callable[[], bool]) -> None:
        instance = self.instance
        async with self._lock:
            if instance.state is not State.READY:
                raise NotPossible(f"{instance.name!r} is {instance.state}, not ready to sleep")
            if not wanted():
                raise CalledOff(f"{instance.name!r} stays awake: a request came")
            mark = await self._drain(cause, drain_seconds, level)
            failure: EngineError | None = None
            try:
                await self._engine.sleep(level)
                # One that cannot be asked has said that it is done.
                asleep: bool | None = await self._engine.is_asleep() is not False
            except NotSupported as unable:
                await self._marks.clear()
                instance.enter_ready()
                raise NotPossible(str(unable)) from unable
            except EngineError as error:
                failure = error
                asleep = await self._settle_doubt(level, error, expected=True)
            await self._end_of_sleep(asleep, failure, mark)

    async def _end_of_sleep(self, asleep: bool | None, failure: EngineError | None, mark: SleepMark) -> None:
        instance = self.instance
        if asleep:
            mark = replace(mark, phase=Phase.ASLEEP)
            instance.sleeps[mark.cause] += 1
            instance.enter_asleep(mark)
            await self._marks.confirm(mark)
            return
        problem = str(failure) if failure else f"{instance.name!r} says that it is awake after it was put to sleep"
        if asleep is None:
            instance.enter_failed(problem)
        else:
            instance.enter_ready()
            await self._marks.clear()
        raise EngineFailed(problem)

    async def _drain(self, cause: str, seconds: float, level: int) -> SleepMark:
        """Wait until nothing is in flight, here and in the engine; write the mark; close the door."""
        instance = self.instance
        drain, until = instance.enter_draining(), asyncio.get_running_loop().time() + seconds
        mark: SleepMark | None = None
        try:
            await self._empty(drain, until)
            process = await self._origin.process()
            mark = SleepMark(instance.name, Phase.FALLING_ASLEEP, level, cause, instance.wall(), process)
            await self._marks.put(mark)
            await self._empty(drain, until)
        except BaseException as stopped:
            if not drain.called_off:
                instance.call_off()
            if mark is not None:
                await self._marks.clear()
            if isinstance(stopped, EngineError):
                raise EngineFailed(f"{instance.name!r} does not tell whether it is idle: {stopped}") from stopped
            raise
        # Nothing was awaited since the last look: no request can have slipped in.
        instance.enter_falling_asleep(mark)
        return mark

    async def _empty(self, drain: Drain, until: float) -> None:
        """Return when nothing is in flight, here and in the engine. Raises ``CalledOff`` and ``Busy``.

        ``until``, on the loop's clock, is for requests alone: an engine or a disk that is slow to answer is not busy.
        """
        instance = self.instance
        while True:
            # A request whose client has left may still run in there, and so may a health check.
            busy = instance.in_flight or await self._busy()
            if drain.called_off:
                raise CalledOff(f"{instance.name!r} stays awake: a request came")
            if not busy and not instance.in_flight:
                return
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                raise Busy(f"{instance.name!r} was still busy when its time to drain was over, and stays awake")
            await drain.change(left if instance.in_flight else min(left, BUSY_PAUSE))

    async def _busy(self) -> bool:
        """By the engine's own count. One that does not tell is given time to notice that a client has left."""
        count = await self._engine.busy()
        if count is None:
            return self.instance.clock() - self.instance.abandoned_at < ABANDONED_SECONDS
        return count > 0

    # -- wake ----------------------------------------------------------------------------------------------------

    async def wake(self, cause: str) -> None:
        """Wake it; nothing happens if it is awake. Raises ``EngineFailed`` or ``NotPossible``."""
        instance = self.instance
        if instance.state is State.DRAINING:
            instance.call_off()
        if instance.state is State.READY:
            return
        if instance.state not in (State.ASLEEP, State.FALLING_ASLEEP, State.WAKING):
            raise NotPossible(f"{instance.name!r} is {instance.state}: {instance.problem}")
        await self._flights.join("wake", lambda: self._wake_up(cause))

    def wake_soon(self, cause: str) -> None:
        """Begin to wake it without waiting; the outcome is seen in its state."""
        self._flights.start("wake", lambda: self._wake_up(cause))

    async def _wake_up(self, cause: str) -> None:
        instance = self.instance
        async with self._lock:
            if instance.state is not State.ASLEEP:
                return
            instance.enter_waking()
            level, since, process = instance.level, instance.asleep_since, await self._origin.process()
            if _is_another(process, instance.process):
                log.warning("%s was restarted while it slept", instance.name)
                await self._find_out()
                return
            mark = SleepMark(instance.name, Phase.WAKING, level, instance.cause, since, process)
            await self._marks.confirm(mark)
            failure: EngineError | None = None
            try:
                await self._engine.wake(level or None)
                asleep: bool | None = await self._engine.is_asleep() or False
            except EngineError as error:
                failure = error
                asleep = await self._settle_doubt(level or 1, error, expected=False)
            await self._end_of_wake(asleep, failure, mark, cause)

    async def _end_of_wake(self, asleep: bool | None, failure: EngineError | None, mark: SleepMark, cause: str) -> None:
        instance = self.instance
        if asleep is False:
            log.info("%s was woken (%s)", instance.name, cause)
            instance.wakes["ok"] += 1
            await self._marks.clear()
            await self._let_in(woken=True)
            return
        instance.wakes["failed"] += 1
        problem = str(failure) if failure else f"{instance.name!r} still says that it sleeps"
        if asleep is None:
            instance.enter_failed(problem)
        else:
            await self._marks.confirm(replace(mark, phase=Phase.ASLEEP))
            instance.enter_asleep_again(problem)
        raise EngineFailed(problem)

    # -- doubt ---------------------------------------------------------------------------------------------------

    async def _settle_doubt(self, level: int, error: EngineError | None, *, expected: bool) -> bool | None:
        """After a call whose outcome is not known: does it sleep? None when nobody can tell.

        An engine that cannot be asked is told to sleep once more, which changes nothing if it does: then it is certain.
        """
        if error is not None:
            log.warning("%s", error)
        refused = isinstance(error, EngineRefused) and error.status < 500
        if expected and refused and not self._engine.capabilities.tells_sleep:
            return False  # it understood, and did not do it
        asleep: bool | None = None
        for attempt in range(DOUBT_TRIES):
            if attempt:
                await asyncio.sleep(DOUBT_PAUSE)
            try:
                asleep = await self._engine.is_asleep()
                if asleep is None and not await self._busy():
                    log.warning("%s cannot be asked whether it sleeps: it is put to sleep", self.instance.name)
                    await self._engine.sleep(level)
                    return True
            except EngineUnreachable:
                return None
            except EngineError as again:
                log.warning("%s", again)
                continue
            # A call that timed out may still be at work in there: what it would bring about is waited for.
            if asleep is expected or (asleep is not None and not isinstance(error, EngineTimeout)):
                return asleep
        return asleep

    # -- settling ------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Find out the state of an instance that is unknown, starting or failed."""
        await self._flights.join("settle", self._settle)

    def settle_soon(self) -> None:
        """Begin to find out without waiting; what was found is seen in its state."""
        self._flights.start("settle", self._settle)

    async def _settle(self) -> None:
        if self._lock.locked():
            return
        async with self._lock:
            await self._find_out()

    async def _find_out(self) -> None:
        instance = self.instance
        if not await self._engine.healthy():
            await self._forget_if_gone()
            if await self._origin.starting():
                instance.enter_starting("it is starting")
            else:
                instance.enter_failed(f"no healthy answer from {instance.config.spec.base_url}")
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

    async def _forget_if_gone(self) -> None:
        """Nobody listens there: whoever slept is gone, and the next one to listen is awake.

        On another machine nothing else tells that an engine was restarted.
        """
        try:
            await self._engine.busy()
        except EngineUnreachable:
            await self._marks.clear()
        except EngineError:
            pass

    async def _sleeps(self, mark: SleepMark | None) -> bool | None:
        """Whether an engine that is up sleeps: by its own word, else by its mark."""
        asleep = await self._engine.is_asleep()
        if asleep is not None:
            return asleep
        if mark is None or _is_another(await self._origin.process(), mark.process):
            return False
        if mark.phase is Phase.ASLEEP:
            return True
        return await self._settle_doubt(mark.level, None, expected=True)

    def observe_soon(self) -> None:
        """Look at it now, without waiting."""
        self._flights.start("observe", self.observe)

    async def observe(self) -> None:
        """Look at an instance that is ready or asleep, and correct the record if the engine says otherwise."""
        instance = self.instance
        before = instance.since
        sight = await self._engine.look()
        healthy, asleep = sight.healthy, sight.asleep
        if healthy is None:
            return  # too busy to answer: no news
        if healthy and asleep is None and instance.state is State.ASLEEP:
            asleep = not _is_another(await self._origin.process(), instance.process)
        if self.under_way or instance.since != before:
            return  # it has moved on meanwhile
        instance.looked_at = instance.clock()
        if not healthy:
            instance.enter_failed(f"no healthy answer from {instance.config.spec.base_url}")
            await self._forget_if_gone()
        elif instance.state is State.ASLEEP and asleep is False:
            log.warning("%s is awake, though nobody here woke it", instance.name)
            await self._settle()
        elif instance.state is State.READY and asleep:
            log.warning("%s is asleep, though nobody here put it to sleep", instance.name)
            stranded = instance.in_flight
            instance.enter_asleep(self._marks.found_asleep())
            if stranded:
                self.wake_soon("requests in flight")

    def _broke(self, error: BaseException) -> None:
        """A transition ended as none should. Who waits for it must not wait on."""
        if not isinstance(error, TransitionRefused) and self.instance.state in UNSETTLED:
            self.instance.enter_failed(str(error))


def _is_another(process: str | None, recorded: str | None) -> bool:
    """Whether the engine was restarted since its process was recorded; not if one of the two is unknown."""
    return process is not None and recorded is not None and process != recorded
