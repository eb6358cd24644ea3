"""How one instance falls asleep, wakes, is started and ended, and is found again after a restart.

Each is single-flight: it runs in a task of its own that outlives whoever asked for it, and others join it. One lock
keeps them apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from controller.fleet.errors import Busy, CalledOff, EngineFailed, NotPossible, TransitionRefused
from controller.fleet.finding import Finding, Wake, is_another
from controller.fleet.instance import A_REQUEST_CAME, Drain, Instance
from controller.fleet.journal import Happened
from controller.fleet.origin import Origin
from controller.fleet.scales import Scales, no_scales
from controller.fleet.single_flight import SingleFlight
from controller.fleet.state import AWAKE, SLEEPING, Hold, State
from runtime.engines.base import EngineError, NotSupported
from state.sleep_marks import Phase, SleepMark, SleepMarks

log = logging.getLogger(__name__)

UNSETTLED = frozenset({State.FALLING_ASLEEP, State.WAKING, State.UNKNOWN, State.FAILED})

BUSY_PAUSE = 0.1

IT_WAS_BUSY, BROKEN_OFF = "it was busy", "it was broken off"
"""Why a sleep did not happen, unless something went wrong."""

Depth = Callable[[Instance], int]
"""The level at which an instance may sleep now. Raises ``NotPossible``."""


def wished_depth(instance: Instance) -> int:
    """As in the YAML, if its engine has that level."""
    return instance.engine.capabilities.levels_from(instance.config.sleep.level)[0]


class Transitions(Finding):
    def __init__(self, instance: Instance, marks: SleepMarks, origin: Origin) -> None:
        super().__init__(instance, marks, origin)
        self.depth: Depth = wished_depth
        self.scales: Scales = no_scales
        self._flights = SingleFlight(self.instance.name, self._broke)

    async def process(self) -> str | None:
        """The identity of the engine's process; None where it is not known."""
        return await self._origin.process()

    async def pids(self) -> frozenset[int]:
        """Of all processes of the engine; none where they are not known."""
        return await self._origin.pids()

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
        firm: bool = False,
    ) -> None:
        """Put it to sleep once it has drained. Nothing happens if it sleeps already.

        ``level``: at that one, or at a deeper one where there is no memory for it any more when it begins.
        ``firm``: a request that comes meanwhile does not call that off, and waits.
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
        await self._flights.join("sleep", lambda: self._fall_asleep(cause, drain_seconds, level, wanted, firm))

    async def _fall_asleep(
        self, cause: str, drain_seconds: float, wished: int | None, wanted: Callable[[], bool], firm: bool
    ) -> None:
        instance = self.instance
        async with self._lock:
            if instance.state is not State.READY:
                raise NotPossible(f"{instance.name!r} is {instance.state}, not ready to sleep")
            if not wanted():
                raise CalledOff(f"{instance.name!r} is not put to sleep: {A_REQUEST_CAME}")
            level = max(wished or 0, self.depth(instance))  # nothing is awaited from here until it drains for that
            began = instance.clock()
            mark = await self._drain(cause, drain_seconds, level, firm)
            settled = await self.scales(instance, level)
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
                asleep = await self._doubt.settle(level, error, expected=True)
            if asleep:
                await settled()
            await self._end_of_sleep(asleep, failure, mark, instance.clock() - began)

    async def _end_of_sleep(
        self, asleep: bool | None, failure: EngineError | None, mark: SleepMark, seconds: float
    ) -> None:
        instance = self.instance
        if asleep:
            mark = await self._asleep(mark, failure)
            instance.sleeps[mark.cause] += 1
            instance.enter_asleep(mark)
            instance.tell(Happened.SLEPT, cause=mark.cause, seconds=seconds, level=mark.level)
            await self._marks.confirm(mark)
            return
        problem = str(failure) if failure else f"{instance.name!r} says that it is awake after it was put to sleep"
        instance.tell(Happened.SLEEP_FAILED, cause=mark.cause, detail=problem)
        if asleep is None:
            instance.enter_failed(problem)
        else:
            instance.enter_ready()
            await self._marks.clear()
        raise EngineFailed(problem)

    async def _drain(self, cause: str, seconds: float, level: int, firm: bool) -> SleepMark:
        """Wait until nothing is in flight, here and in the engine; write the mark; close the door."""
        instance = self.instance
        drain, until = instance.enter_draining(level, firm=firm), asyncio.get_running_loop().time() + seconds
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
            instance.tell(Happened.SLEEP_CALLED_OFF, cause=cause, detail=_reason(stopped, drain))
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
            busy = instance.in_flight or self.shared() or await self._doubt.busy()
            if drain.called_off:
                raise CalledOff(f"{instance.name!r} is not put to sleep: {drain.called_off}")
            if not busy and not instance.in_flight:
                return
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                raise Busy(f"{instance.name!r} was still busy when its time to drain was over, and stays awake")
            await drain.change(left if instance.in_flight else min(left, BUSY_PAUSE))

    # -- wake ----------------------------------------------------------------------------------------------------

    async def wake(self, cause: str) -> None:
        """Wake it; nothing happens if it is awake. Raises ``EngineFailed`` or ``NotPossible``.

        A drain that is firm comes to its end first.
        """
        instance = self.instance
        if instance.state is State.DRAINING and not instance.firm:
            instance.call_off()
        if instance.state is State.READY:
            return
        if instance.state not in AWAKE | SLEEPING | {State.STOPPED}:
            raise NotPossible(f"{instance.name!r} is {instance.state}: {instance.problem}")
        await self._flights.join("wake", lambda: self._wake_up(cause))

    def wake_soon(self, cause: str) -> None:
        """Begin to wake it without waiting; the outcome is seen in its state."""
        self._flights.start("wake", lambda: self._wake_up(cause))

    async def _wake_up(self, cause: str) -> None:
        instance = self.instance
        async with self._lock:
            if instance.state is State.STOPPED:
                if instance.hold:
                    raise NotPossible(f"{instance.name!r} is stopped: {instance.problem}; start it first")
                await self._start_up(cause)
            if instance.state is not State.ASLEEP:
                return
            self._wake = Wake(cause, instance.level, instance.clock())
            instance.enter_waking()
            instance.tell(Happened.WAKE_BEGAN, cause=cause, level=instance.level)
            level, since, process = instance.level, instance.asleep_since, await self._origin.process()
            if is_another(process, instance.process):
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
                asleep = await self._doubt.settle(level or 1, error, expected=False)
            await self._end_of_wake(asleep, failure, mark)

    async def _end_of_wake(self, asleep: bool | None, failure: EngineError | None, mark: SleepMark) -> None:
        instance = self.instance
        if asleep is False:
            await self._marks.clear()
            await self._let_in(woken=True)
            return
        problem = str(failure) if failure else f"{instance.name!r} still says that it sleeps"
        self._wake_failed(problem)
        if asleep is None:
            instance.enter_failed(problem)
        else:
            mark = await self._asleep(mark, failure)
            await self._marks.confirm(mark)
            instance.process = mark.process
            instance.enter_asleep_again(problem)
        raise EngineFailed(problem)

    async def _asleep(self, mark: SleepMark, failure: EngineError | None) -> SleepMark:
        """The mark of one that sleeps now. After a failure that may be another process than the one that was told."""
        process = mark.process if failure is None else await self._origin.process()
        return replace(mark, phase=Phase.ASLEEP, process=process)

    # -- the process ---------------------------------------------------------------------------------------------

    async def stop(
        self,
        cause: str,
        drain_seconds: float | None,
        hold: Hold = Hold.NONE,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """End its process, once it has drained. Nothing happens if it is stopped. Raises ``TransitionRefused``.

        ``drain_seconds``: None if it is not to be waited for, for it hangs. ``wanted``: as for ``sleep``.
        """
        if not self.keeper.can(self.instance.name):
            raise NotPossible(f"{self.instance.name!r} is not ours to stop")
        await self._flights.join("stop", lambda: self._stop(cause, drain_seconds, hold, wanted))

    async def fall(self, problem: str, pause: float | None, failures: int) -> None:
        """Its process has ended, as it should not have: it may be started again after so many seconds, if at all.

        ``failures``: so many in a row, without its having been up between them.
        """
        async with self._lock:
            if self.instance.state not in (State.FAILED, State.STOPPED):
                return  # somebody was faster
            if pause is None:
                self.instance.enter_given_up(problem)
            else:
                self.instance.enter_crashed(problem, pause, failures)

    async def rest(self, cause: str) -> None:
        """It has ended as it should not have, and its next request is to start it: what it has left behind is ended."""
        async with self._lock:
            if self.instance.state is State.STOPPED and not self.instance.hold:
                await self.keeper.stop(self.instance.name)
                await self._is_stopped(cause, Hold.NONE)

    async def _stop(self, cause: str, drain_seconds: float | None, hold: Hold, wanted: Callable[[], bool]) -> None:
        instance = self.instance
        async with self._lock:
            if instance.state is State.STOPPED and not hold:
                return
            if not wanted():
                raise CalledOff(f"{instance.name!r} is not stopped: {A_REQUEST_CAME}")
            if instance.state is State.READY and drain_seconds is not None:
                drain = instance.enter_draining(0, firm=True)
                try:
                    await self._empty(drain, asyncio.get_running_loop().time() + drain_seconds)
                except BaseException as stopped:
                    instance.call_off()
                    if isinstance(stopped, EngineError):
                        raise EngineFailed(str(stopped)) from stopped
                    raise
            if instance.state not in (State.ASLEEP, State.STOPPED):  # such take no more than that while they end
                instance.enter_leaving()
            settled = await self.scales(instance, 0)
            try:
                await self.keeper.stop(instance.name)
                await settled()
            except Exception:
                await self._find_out()
                raise
            await self._is_stopped(cause, hold)

    async def _is_stopped(self, cause: str, hold: Hold) -> None:
        await self._marks.clear()
        self.instance.enter_stopped(cause, hold)
        self.instance.tell(Happened.STOPPED, cause=cause)

    async def _start_up(self, cause: str) -> None:
        """Launch its process. From then on it is starting, and looked at until it is ready or has failed."""
        instance = self.instance
        self._wake = Wake(cause, 0, instance.clock())
        instance.enter_starting("it is being started")
        instance.tell(Happened.STARTED, cause=cause)
        try:
            await self.keeper.start(instance.name)
        except TransitionRefused as refused:
            self._wake_failed(str(refused))
            instance.enter_asleep_again(str(refused), State.STOPPED)
            raise

    # -- looking -------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Find out the state of an instance that is unknown, starting or failed."""
        await self._flights.join("settle", self._settle)

    def settle_soon(self) -> None:
        """Begin to find out without waiting; what was found is seen in its state."""
        self._flights.start("settle", self._settle)

    def observe_soon(self) -> None:
        """Look at it now, without waiting."""
        self._flights.start("observe", self.observe)

    async def observe_now(self) -> None:
        """Look at it, or wait for whoever does."""
        await self._flights.join("observe", self.observe)

    async def observe(self) -> None:
        """Look at an instance that is ready or asleep, and correct the record if the engine says otherwise."""
        if await self._observe():
            self.wake_soon("requests in flight")

    def _broke(self, error: BaseException) -> None:
        """A transition ended as none should. Who waits for it must not wait on."""
        if not isinstance(error, TransitionRefused) and self.instance.state in UNSETTLED:
            self.instance.enter_failed(str(error))


def _reason(stopped: BaseException, drain: Drain) -> str:
    if isinstance(stopped, CalledOff):
        return drain.called_off
    return IT_WAS_BUSY if isinstance(stopped, Busy) else str(stopped) or BROKEN_OFF
