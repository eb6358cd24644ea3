"""Brings units up and takes them down: looks, decides by ``plan``, acts, and waits until each is ready or dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import Enum

from controller.config.model import FRONTEND, Config
from controller.launch import logs, plan, process_tree
from controller.launch.exclusion import AtWork, Turn, turn
from controller.launch.gateway import GatewayRefused
from controller.launch.handover import HandoverFailed
from controller.launch.plan import Decision, Seen, Step
from controller.launch.preflight import holder
from controller.launch.progress import Progress
from controller.launch.readiness import Readiness, wait_until_ready
from controller.launch.room import NoRoom, Room
from controller.launch.sessions import CannotStart, close_session, last_leader, open_session
from controller.launch.sleeper import Sleeper, StaysAwake
from controller.launch.succession import NothingToRenew, renew
from controller.launch.survey import Survey
from controller.launch.tmux import Pane, Tmux, TmuxError
from controller.launch.unit import ROUTER, Unit
from controller.residency.occupancy import occupant_of
from runtime.processes import identity, is_running
from state.database import StateError
from state.launches import Launch, Launches

EPITAPH_SECONDS = 3.0


class State(Enum):
    READY = "ready"
    ASLEEP = "asleep"
    STOPPED = "stopped"
    """Its first request starts it."""
    NO_ROOM = "not started"
    """Likewise, though it was to be up by now."""
    STARTED = "started"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    state: State
    detail: str = ""
    differences: tuple[str, ...] = ()


class Pace:
    """Keeps launches ``seconds`` apart."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._last: float | None = None

    async def next(self) -> None:
        now = asyncio.get_running_loop().time
        async with self._lock:
            if self._last is not None:
                await asyncio.sleep(max(0.0, self._last + self._seconds - now()))
            self._last = now()


class Launcher:
    def __init__(
        self,
        config: Config,
        survey: Survey,
        tmux: Tmux,
        launches: Launches,
        sleeper: Sleeper,
        progress: Progress,
        room: Room | None = None,
        turn: Turn = turn,
    ) -> None:
        """``room``: has it for what is started; None where that is seen to already."""
        self._config = config
        self._survey = survey
        self._tmux = tmux
        self._launches = launches
        self._sleeper = sleeper
        self._room = room
        self._turn = turn
        self._frontend_ended: asyncio.Event | None = None
        self._progress = progress

    async def up(self, units: Sequence[Unit], *, wait: bool = True, asked: bool = True) -> dict[str, Outcome]:
        """Bring ``units`` up. One that fails does not stop the others. ``asked``: for each of them by its name."""
        seen = await self._survey.seen(units, await self._launches.all())
        decisions = {unit.name: plan.decide(unit, seen[unit.name], asked=asked) for unit in units}
        ordered = plan.order(units, [name for name, one in decisions.items() if one.step is Step.WAIT])
        ended = {unit.name: asyncio.Event() for unit in units}
        self._frontend_ended = ended.get(FRONTEND)
        pace = Pace(self._config.launch_delay_seconds)
        for unit in ordered:
            self._progress.begin(unit.name, unit.log)

        async def see_to(unit: Unit) -> Outcome:
            try:
                if wait and decisions[unit.name].step is Step.START:
                    await self._take_turn(plan.before(unit, ordered), ended, unit)
                return await self._bring_up(unit, decisions[unit.name], seen[unit.name], pace, wait)
            finally:
                ended[unit.name].set()

        outcomes = await asyncio.gather(*(see_to(unit) for unit in ordered))
        return {unit.name: outcome for unit, outcome in zip(ordered, outcomes, strict=True)}

    async def renew(self, unit: Unit) -> str | None:
        """Have the next gateway take over from the one that runs, without losing a request. Why it did not, if so.

        Raises ``NothingToRenew``.
        """
        pane = await self._survey.pane(unit) if unit.service is ROUTER else None
        if pane is None or pane.dead:
            raise NothingToRenew
        self._progress.begin(unit.name, unit.log)
        self._progress.tell(unit.name, "starting", "the next gateway takes over")
        seconds = self._config.launch.ready_timeout_seconds
        problem = await renew(pane.pid, unit.port, self._survey.probes[unit.name], seconds)
        self._progress.tell(unit.name, State.FAILED.value if problem else State.READY.value, problem or "")
        record = (await self._launches.all()).get(unit.name)
        if problem is None and record is not None:
            await self._launches.put(replace(record, environment=unit.record[1]))
        return problem

    async def stop(self, units: Sequence[Unit]) -> dict[str, str | None]:
        """Stop ``units``, all at once. What could not be done, by name; None where all went well."""
        problems = await asyncio.gather(*(self._stop_in_turn(unit) for unit in units))
        return {unit.name: problem for unit, problem in zip(units, problems, strict=True)}

    async def _take_turn(self, others: Sequence[str], ended: dict[str, asyncio.Event], unit: Unit) -> None:
        waiting = [name for name in others if not ended[name].is_set()]
        if waiting:
            self._progress.tell(unit.name, "waiting", f"it may share a GPU with {', '.join(waiting)}")
        for name in others:
            await ended[name].wait()

    async def _bring_up(self, unit: Unit, decision: Decision, seen: Seen, pace: Pace, wait: bool) -> Outcome:
        if decision.step is Step.REFUSE:
            return self._failed(unit, decision.reason)
        if decision.step is Step.REST:
            return self._ended(unit, Outcome(State.STOPPED, decision.reason))
        if decision.step is Step.LEAVE:
            whom = await asyncio.to_thread(holder, unit.port)
            return self._ended(unit, Outcome(State.READY, f"{decision.reason} ({whom})"))
        if decision.step is Step.KEEP:
            return self._ended(unit, Outcome(State.READY, decision.reason, decision.differences))
        if decision.step is Step.WAIT:
            assert seen.pane is not None  # decide() waits only for what has one
            self._progress.tell(unit.name, "starting", decision.reason)
            return await self._see_up(unit, seen.pane, decision, wait)
        if unit.instance is not None:
            await pace.next()
        try:
            async with self._room_for(unit):
                self._progress.tell(unit.name, "starting", decision.reason)
                try:
                    pane = await self._start_whole(unit)
                except (AtWork, CannotStart, HandoverFailed, TmuxError, OSError) as problem:
                    return self._failed(unit, str(problem))
                return await self._see_up(unit, pane, decision, wait)
        except NoRoom as none:
            return self._ended(unit, Outcome(State.NO_ROOM, str(none)))
        except GatewayRefused as refused:
            return self._failed(unit, str(refused))

    async def _see_up(self, unit: Unit, pane: Pane, decision: Decision, wait: bool) -> Outcome:
        if not wait:
            return self._ended(unit, Outcome(State.STARTED, "", decision.differences))
        return await self._wait(unit, pane, decision.differences)

    def _room_for(self, unit: Unit) -> AbstractAsyncContextManager[None]:
        """A gateway that is just coming up counts what it finds."""
        comes_up = self._frontend_ended is not None and not self._frontend_ended.is_set()
        if self._room is None or unit.instance is None or comes_up:
            return nullcontext()
        return self._room.kept(unit.instance, lambda text: self._progress.tell(unit.name, "waiting", text))

    async def _start_whole(self, unit: Unit) -> Pane:
        """Whoever is cancelled meanwhile waits: what has been started is to be in the records."""
        starting = asyncio.ensure_future(self._start_in_turn(unit))
        try:
            return await asyncio.shield(starting)
        finally:
            if not starting.done():
                await asyncio.wait([starting])

    async def _start_in_turn(self, unit: Unit) -> Pane:
        """Its pane, also if a request has had the gateway start it meanwhile."""
        async with self._turn(unit):
            seen = (await self._survey.seen([unit], await self._launches.all()))[unit.name]
            return seen.pane if seen.pane is not None and not seen.pane.dead else await self._start(unit, seen)

    async def _start(self, unit: Unit, seen: Seen) -> Pane:
        seconds = self._config.launch.stop_timeout_seconds
        pane = await asyncio.to_thread(open_session, self._tmux, unit, seen.pane, seen.record, seconds)
        process = await asyncio.to_thread(identity, pane.pid)
        argv, environment = unit.record
        occupant = occupant_of(unit.instance) if unit.instance is not None else None
        await self._launches.put(
            Launch(unit.name, unit.session, process or f"{pane.pid}:0.00", argv, environment, time.time(), occupant)
        )
        return pane

    async def _wait(self, unit: Unit, pane: Pane, differences: tuple[str, ...]) -> Outcome:
        process = await asyncio.to_thread(identity, pane.pid)

        async def alive() -> bool:
            return process is not None and await asyncio.to_thread(is_running, process)

        began, seconds = time.monotonic(), self._config.launch.ready_timeout_seconds
        readiness = await wait_until_ready(self._survey.probes[unit.name], alive, seconds)
        if readiness is Readiness.READY:
            took = f"after {time.monotonic() - began:.1f} s"
            return self._ended(unit, await self._lay_down(unit, Outcome(State.READY, took, differences)))
        if readiness is Readiness.DIED:
            return await self._died(unit, differences)
        tail = await asyncio.to_thread(logs.tail, unit.log)
        return self._failed(unit, f"not ready after {seconds:g} s; it is left running", differences, tail)

    async def _lay_down(self, unit: Unit, ready: Outcome) -> Outcome:
        """Put it to sleep if it is to come up so: only then is its turn over."""
        if unit.instance is None or unit.instance.start != "asleep":
            return ready
        self._progress.tell(unit.name, "starting", f"ready {ready.detail}, being put to sleep")
        if self._frontend_ended is not None:
            await self._frontend_ended.wait()  # one that is just coming up would take it to be awake
        try:
            await self._sleeper.put_to_sleep(unit.instance)
        except (StaysAwake, StateError) as problem:
            return replace(ready, detail=f"{ready.detail}; it stays awake: {problem}")
        return replace(ready, state=State.ASLEEP)

    async def _died(self, unit: Unit, differences: tuple[str, ...]) -> Outcome:
        """Its exit status, once tmux has noticed, and its last words, which may not have reached the log yet."""
        deadline = time.monotonic() + EPITAPH_SECONDS
        pane = await self._survey.pane(unit)
        while pane is not None and not (pane.dead and pane.status) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            await asyncio.to_thread(self._tmux.reap)
            pane = await self._survey.pane(unit)
        if pane is None:
            tail = await asyncio.to_thread(logs.tail, unit.log)
            return self._failed(unit, "died, and its session is gone", differences, last_words=tail)
        words = await asyncio.to_thread(self._tmux.last_words, pane, logs.TAIL_LINES)
        reason = f"died, {pane.status or 'how is not known'}"
        return self._failed(unit, reason, differences, last_words=words)

    def _ended(self, unit: Unit, outcome: Outcome) -> Outcome:
        self._progress.tell(unit.name, outcome.state.value, outcome.detail)
        return outcome

    def _failed(
        self, unit: Unit, reason: str, differences: tuple[str, ...] = (), last_words: Sequence[str] = ()
    ) -> Outcome:
        self._progress.tell(unit.name, State.FAILED.value, reason)
        if last_words:
            self._progress.show(f"{unit.name}: the end of {unit.log}:", last_words)
        return Outcome(State.FAILED, reason, differences)

    async def _stop_in_turn(self, unit: Unit) -> str | None:
        try:
            async with self._turn(unit):
                return await self._stop(unit, await asyncio.to_thread(self._tmux.panes))
        except (AtWork, OSError) as problem:
            return str(problem)

    async def _stop(self, unit: Unit, panes: Sequence[Pane]) -> str | None:
        pane, strange = plan.find(unit, panes)
        seconds = self._config.launch.stop_timeout_seconds
        if pane is not None:
            session = [other for other in panes if other.session == pane.session]
            left = await asyncio.to_thread(close_session, self._tmux, session, seconds)
        else:  # its session may have been killed by hand, and the engine may have outlived that
            last = (await self._launches.all()).get(unit.name)
            left = await asyncio.to_thread(process_tree.stop, last_leader(last), unit.marker, seconds)
        if left:
            return f"processes that could not be ended: {', '.join(map(str, left))}"
        await self._launches.clear(unit.name)
        if strange is not None:
            return f"the tmux session {unit.session} is not this configuration's and was left alone"
        if pane is None and await self._survey.probes[unit.name].recognised():
            whom = await asyncio.to_thread(holder, unit.port)
            return f"was not started by this launcher and was left alone: {whom}"
        return None
