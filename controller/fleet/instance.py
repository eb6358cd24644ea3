"""One instance: what state it is in and what is in flight on it. How it changes state: ``transitions``."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable

from controller.config.model import Instance as InstanceConfig
from controller.fleet.admission import View
from controller.fleet.circuit import Breaker
from controller.fleet.journal import Happened, Journal
from controller.fleet.state import AWAKE, NOT_ASLEEP, Hold, State
from controller.residency.footprint import Footprint
from runtime.engines.base import Engine
from state.sleep_marks import SleepMark

log = logging.getLogger(__name__)

EVICTED = "evicted"
"""The cause of a sleep that made room for another model."""

STAGED = "start"
"""The cause of a sleep that is how an instance was started (``start: asleep``)."""

DEEPER = "deeper"
"""The cause of a sleep that goes on at another level."""

LIGHT = frozenset({EVICTED, STAGED, DEEPER})
"""Causes of sleeps that may end at any time: nobody has just found that the model is not needed."""

WAKES_KEPT = 32

READY = State.READY
"""An enumeration is slow to be asked for what is in it, and each request is counted in."""

FIRST_RETRY, LAST_RETRY = 1.0, 30.0
"""Seconds between failed wakes: doubled from the first to the last."""


ATTENDED_SECONDS = 5.0
"""Within so many seconds after it failed, it is clear whether its process has ended and is started again."""


A_REQUEST_CAME, NOT_NEEDED = "a request came", "it need not leave any more"
"""Why one that drained stays awake."""


class Drain:
    """One attempt to get empty. ``changed`` is set when something may have come of it."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.called_off = ""  # why

    async def change(self, seconds: float) -> None:
        """Wait for the next change, ``seconds`` at most."""
        self.changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            pass


class Instance:
    """One engine process as the gateway knows it. Times are on ``clock`` (monotonic) unless they say wall."""

    def __init__(
        self,
        config: InstanceConfig,
        engine: Engine,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = config.name
        self.name_bytes = config.name.encode()
        self.configure(config, engine)
        self.clock = clock
        self.wall = wall
        self.state = State.UNKNOWN
        self.since = clock()
        self._spent: defaultdict[State, float] = defaultdict(float)
        self.ready_since = self.since
        self.awake_since = float("-inf")  # for long, if it was awake already when it was first looked at
        self.looked_at = float("-inf")
        self.problem = "not looked at yet"
        self.in_flight = 0
        self.answers = 0  # begun and ended ones: grows as long as it works
        self.served = 0  # whole answers that were no errors: no engine gives one asleep
        self.breaker = Breaker()
        self.troubled = False  # as the breaker says; asked for every request
        self.level = 0
        self.maybe_asleep = True  # or on the way into sleep, or out of it: nobody has told that it is not
        self.cause = ""
        self.asleep_since = 0.0  # wall: it may be from before this process
        self.abandoned_at = float("-inf")
        self._slept_before = 0.0
        self._known_asleep_at = clock()
        self.process: str | None = None  # the one that was put to sleep, where that is known
        self.wake_failures = 0
        self.sleeps: Counter[str] = Counter()
        self.wakes: Counter[str] = Counter()
        self.watchers: list[Callable[[], None]] = []
        self.on_idle: Callable[[], None] | None = None
        self.journal = Journal()
        self.used_at = self.since  # when it last had nothing left in flight
        self.firm = False  # while draining: no request calls it off
        self.gone = False  # failed, and nobody listens at its address
        self.slept = False  # when it failed: nobody wanted it
        self.measured: Footprint | None = None  # of its levels of sleep, those that it was seen at
        self.hold = Hold.NONE
        self.attended = False  # somebody sees to it when its process has ended
        self.silent_since: float | None = None  # it has held requests and done nothing
        self.wake_seconds: dict[int, deque[float]] = {}  # of its last wakes, by the level it slept at; 0: starts
        self._retry_at = float("-inf")
        self._drain: Drain | None = None
        self._farewell: Drain | None = None  # out of the configuration
        self._left_in: State | None = None

    def configure(self, config: InstanceConfig, engine: Engine) -> None:
        """Other settings of the same engine."""
        self.config = config
        self.weight = config.weight
        self.engine = engine

    # -- requests ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Count a request in. Only while ready: whoever picks an instance does so without waiting in between."""
        if self.state is not READY:
            raise AssertionError(f"{self.name} is {self.state}, not ready")
        self.in_flight += 1
        if self.troubled:
            self._circuit_is(self.breaker.tried())

    def end(self, *, abandoned: bool = False) -> None:
        """Count it out: its last byte is sent, or its client is gone (``abandoned``, before the answer was whole)."""
        self.in_flight -= 1
        if abandoned:
            self.abandoned_at = self.clock()
        if self.troubled:
            self._circuit_is(self.breaker.untried())
        if self.in_flight == 0:
            self.used_at = self.clock()
            if (drain := self._drain or self._farewell) is not None:
                drain.changed.set()
            if self.on_idle is not None:
                self.on_idle()

    def answer_began(self) -> None:
        """The first byte of an answer that is no failure is there."""
        self.answers += 1
        if self.troubled:
            self.silent_since = None
            self._circuit_is(self.breaker.began())

    def answered(self) -> None:
        """An answer came whole, and it was no failure. To be told before ``end``."""
        self.answers += 1
        if self.troubled:
            self._circuit_is(self.breaker.succeeded())

    def failed(self, cause: str) -> None:
        """A request failed, and not by its client's fault. To be told before ``end``."""
        self._circuit_is(self.breaker.failed(self.clock(), cause))

    def fell_silent(self, cause: str) -> None:
        """It holds requests and does nothing."""
        if self.silent_since is None:
            self.silent_since = self.clock()
        self._circuit_is(self.breaker.trip(self.clock(), cause))

    def rest(self) -> None:
        """It looks healthy: if its circuit has been open for long enough, a request may try."""
        self.silent_since = None
        self._circuit_is(self.breaker.rested(self.clock()))

    def _circuit_is(self, changed: bool) -> None:
        self.troubled = self.breaker.troubled
        if changed:
            log.info("the circuit of %s is %s: %s", self.name, self.breaker.circuit, self.breaker.cause)
            self._tell()

    def view(self, now: float) -> View:
        """What ``admission`` decides by at ``now``, on the instance's clock."""
        remaining = self.remaining_sleep()
        return View(
            state=self.state,
            wakes_on_request=self.config.sleep.wakeup_on_request,
            wake_at=max(now + remaining, self._retry_at),
            wake_failures=self.wake_failures,
            looked_at=self.looked_at,
            problem=self.problem,
            firm=self.firm,
            hold=self.hold,
            attended_until=self.since + ATTENDED_SECONDS if self.attended else float("-inf"),
        )

    def remaining_sleep(self) -> float:
        """Seconds it must still sleep by ``min_sleep_duration``; 0 when it may be woken, or is awake."""
        if self.state not in (State.FALLING_ASLEEP, State.ASLEEP) or self.cause in LIGHT:
            return 0.0
        return max(0.0, self.config.sleep.min_sleep_duration - self.sleep_duration())

    def sleep_duration(self) -> float:
        """Seconds asleep so far. Not by the wall clock, which may be set while it sleeps."""
        return self._slept_before + self.clock() - self._known_asleep_at

    # -- states --------------------------------------------------------------------------------------------------

    def enter_draining(self, level: int, *, firm: bool = False) -> Drain:
        """``level``: it is to sleep at; 0 if its process is to end. ``firm``: requests do not call that off."""
        self._drain = Drain()
        self.level = level
        self.firm = firm
        self._enter(State.DRAINING)
        return self._drain

    def call_off(self, why: str = A_REQUEST_CAME) -> None:
        """Stay awake, if it drains and the engine has not been told. Else nothing happens."""
        if self._drain is not None:
            self._drain.called_off = why
            self._enter(State.READY)

    def enter_falling_asleep(self, mark: SleepMark) -> None:
        self._drain = None
        self.firm = False
        self._remember(mark)
        self._enter(State.FALLING_ASLEEP)

    def enter_asleep(self, mark: SleepMark) -> None:
        self._remember(mark)
        self.hold = Hold.NONE
        log.info("%s is asleep (level %d, %s)", self.name, mark.level, mark.cause)
        self._enter(State.ASLEEP)

    def may_be(self, mark: SleepMark) -> None:
        """It is on the way into that sleep, or out of it: what comes of it is not known yet."""
        self._remember(mark)
        self._tell()

    def enter_asleep_again(self, problem: str, state: State = State.ASLEEP) -> None:
        """A wake failed, or a start: the next one is tried after a pause that doubles."""
        self.wake_failures += 1
        self._retry_at = self.clock() + min(LAST_RETRY, FIRST_RETRY * 2 ** (self.wake_failures - 1))
        self.problem = problem
        self._enter(state)

    def enter_leaving(self) -> None:
        """Its process is about to be ended: nothing may reach it."""
        self._drain = None
        self.level = 0
        self.firm = False
        self._enter(State.FALLING_ASLEEP)

    def enter_waking(self) -> None:
        self._enter(State.WAKING)

    def enter_ready(self) -> None:
        if self.state is not State.READY:
            log.info("%s is ready", self.name)
            self.ready_since = self.clock()
            if self.state is not State.UNKNOWN:
                self.awake_since = self.ready_since
            self.tell(Happened.READY)
        self.wake_failures = 0
        self._retry_at = float("-inf")
        self.problem = ""
        self.hold = Hold.NONE
        self._enter(State.READY)

    def enter_stopped(self, cause: str, hold: Hold = Hold.NONE) -> None:
        self.problem = f"no process of it runs ({cause})"
        self.cause = cause
        self.hold = hold
        self._enter(State.STOPPED)

    def enter_crashed(self, problem: str, pause: float, failures: int) -> None:
        """Its process has ended: it may be started again after so many seconds. ``failures``: starts in vain since."""
        self.wake_failures, self._retry_at = failures, self.clock() + pause
        self.problem = problem
        self._enter(State.STOPPED)

    def enter_given_up(self, problem: str) -> None:
        self.enter_failed(problem)
        self.hold = Hold.GIVEN_UP
        self.is_gone()

    def release(self) -> None:
        """It may be started again, and at once."""
        self.hold = Hold.NONE
        self.wake_failures, self._retry_at = 0, float("-inf")
        if self.state is State.FAILED:
            self._enter(State.STOPPED)

    def enter_starting(self, problem: str) -> None:
        self.hold = Hold.NONE
        self.problem = problem
        self._enter(State.STARTING)

    def enter_failed(self, problem: str) -> None:
        if self.state is not State.FAILED:
            self.slept = self.maybe_asleep and self.state in (State.FALLING_ASLEEP, State.ASLEEP)
            log.warning("%s has failed: %s", self.name, problem)
            self.tell(Happened.FAILED, detail=problem)
        self.problem = problem
        self._enter(State.FAILED)

    def time_in_states(self) -> dict[State, float]:
        """Seconds in each state since the gateway was started."""
        spent = dict(self._spent)
        spent[self.state] = spent.get(self.state, 0.0) + self.clock() - self.since
        return spent

    def is_gone(self) -> None:
        """It has failed, and its process with it: it holds no memory."""
        self.gone = True
        for tell in self.watchers:
            tell()

    def remember_wake(self, level: int, seconds: float) -> None:
        """One from ``level`` took so long; 0: a start."""
        self.wake_seconds.setdefault(level, deque(maxlen=WAKES_KEPT)).append(seconds)

    def learn(self, measured: Footprint) -> None:
        """What it takes has been measured."""
        self.measured = measured
        self._tell()

    def tell(
        self,
        what: Happened,
        *,
        cause: str = "",
        detail: str = "",
        seconds: float | None = None,
        level: int | None = None,
    ) -> None:
        """Note in the journal what has happened to it."""
        self.journal.tell(what, self.config.model, self.name, cause=cause, detail=detail, seconds=seconds, level=level)

    @property
    def has_left(self) -> bool:
        """The configuration."""
        return self._left_in is not None

    @property
    def engine_state(self) -> State:
        """Its state; once it is out of the configuration the one it left in, for its engine is let be."""
        return self._left_in or self.state

    def retire(self) -> None:
        """It is not in the configuration any more: nothing new goes there, whatever was under way finds."""
        self.problem = "it has been taken out of the configuration"
        self._left_in, gone = self.state, self.gone
        self._enter(State.FAILED)
        self.gone = gone
        self._farewell = Drain()

    async def emptied(self) -> None:
        """Return when nothing is in flight on it. Only of one that has retired."""
        assert self._farewell is not None
        while self.in_flight:
            self._farewell.changed.clear()
            await self._farewell.changed.wait()

    def _remember(self, mark: SleepMark) -> None:
        self.level, self.cause, self.asleep_since, self.process = mark.level, mark.cause, mark.since, mark.process
        self._slept_before, self._known_asleep_at = max(0.0, self.wall() - mark.since), self.clock()
        self.maybe_asleep = True

    def _enter(self, state: State) -> None:
        """Tell whoever waits even if nothing changed: they may wait for a look that found the same."""
        if self._farewell is not None:
            return
        self.looked_at = self.clock()
        self.gone = False
        if state not in AWAKE:
            self.silent_since = None
        if state in NOT_ASLEEP:
            self.maybe_asleep = False
        if state is not State.DRAINING and self._drain is not None:
            self._drain.called_off = self._drain.called_off or f"it is {state}"
            self._drain.changed.set()
            self._drain = None
            self.firm = False
        if state is not self.state:
            self._spent[self.state] += self.looked_at - self.since
            self.state, self.since = state, self.looked_at
        self._tell()

    def _tell(self) -> None:
        for tell in self.watchers:
            tell()
