"""Lets models wake when there is room, and has others leave when there is none. Who does is decided in ``decision``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from controller.config.model import Config
from controller.fleet.errors import DeadlinePassed, FleetError, NoRoom, NotPossible
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.journal import Happened
from controller.fleet.state import State
from controller.fleet.transitions import Transitions
from controller.fleet.waker import REQUEST
from controller.residency import crowding, rivals, tenants
from controller.residency.books import Books
from controller.residency.decision import NEVER, Resident, Rules, Wish, decide
from controller.residency.ledger import Ledger
from controller.residency.line import Line, Waiting
from controller.residency.memory import NOTHING, Memory
from controller.residency.moves import Moves
from controller.residency.seniority import ALL_NEW, Seniority
from controller.residency.sleepers import Sleeper
from controller.residency.steps import Admit, Evict, Refuse, Sink, Step, Wait

SUM_SECONDS = 1.0
"""How long it may be overlooked, while nobody waits, that more is awake than should be."""

REFUSED_SECONDS = 60.0
"""How often it is told that a model can have no room: clients may ask for it again and again."""

FEW, LOOK_PAUSE = 100, 40e-6
"""In a fleet of more instances than that, seconds between two looks for each of them: ten times what they cost."""

AT_WORK = frozenset({State.READY, State.DRAINING, State.WAKING})
"""States in which nobody else of the model has to be woken."""

ASIDE = frozenset({State.ASLEEP, State.STOPPED})
"""States in which nobody can leave for anybody, and most of a large fleet is."""

WAKEABLE = frozenset({State.FALLING_ASLEEP, State.ASLEEP, State.STOPPED})
"""States from which a wake takes memory that was given back. In others somebody sees to it already, or it is down."""


class Arbiter:
    """The fleet's waker. It looks, decides and acts in one step of the event loop: nothing changes in between."""

    def __init__(self, fleet: Fleet, measured: Memory = NOTHING, seniority: Seniority = ALL_NEW) -> None:
        """``measured``: what places have of which the YAML says nothing. ``seniority``: who has waited before."""
        self._fleet = fleet
        self._measured = measured
        self._seniority = seniority
        self._line = Line()
        self._ledger = Ledger()
        self._moves = Moves(fleet, self._is_wanted, self.look_soon)
        self._refused: dict[str, tuple[str, float]] = {}
        self._due: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._looked_at = float("-inf")
        fleet.welcome(self._take_in)

    @property
    def config(self) -> Config:
        return self._fleet.config

    def _take_in(self, one: Transitions) -> None:
        """Also those that take no part: they may be measured yet, or be given figures."""
        one.instance.watchers.append(self.look_soon)
        one.instance.on_idle = self.look_soon
        one.depth = self.sleep_level
        self.look_soon()

    async def aclose(self) -> None:
        for handle in (self._due, self._timer, self._later):
            if handle is not None:
                handle.cancel()
        await self._moves.aclose()

    # -- what is asked of it -------------------------------------------------------------------------------------

    def want(self, model: str, among: Sequence[Instance], due: Sequence[Instance]) -> None:
        free = [one for one in due if not tenants.is_managed(one, self.config)]
        if free:
            self._fleet.transitions[free[0].name].wake_soon(REQUEST)
            return
        since = self._seniority.of(model, self._now())
        entry = self._line.join(Waiting(model, tuple(among), since, REQUEST))
        if entry.refusal:
            raise NoRoom(f"There can be no room for {model!r}: {entry.refusal}.")
        self.look_soon()

    def unwant(self, model: str) -> None:
        self._line.forget(model, REQUEST)
        self._moves.call_off()
        self.look_soon()

    def help(self, due: Sequence[Instance], cause: str) -> bool:
        for one in due:
            if not tenants.is_managed(one, self.config):
                self._fleet.transitions[one.name].wake_soon(cause)
                return True
            if self._fits(one):
                self._grant(one, cause, None)
                return True
        return False

    async def wake(self, instance: Instance, cause: str) -> None:
        leaves = instance.state in WAKEABLE or (instance.state is State.DRAINING and instance.firm)
        if not tenants.is_managed(instance, self.config) or not leaves:
            await self._fleet.way_of(instance).wake(cause)
            return
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda one: one.cancelled() or one.exception())  # who asked may have left
        entry = self._line.join(Waiting(instance.config.model, (instance,), self._now(), cause, outcome=outcome))
        assert entry.outcome is not None
        entry.askers += 1
        self.look_soon()
        try:
            async with asyncio.timeout(instance.config.sleep.wake_timeout_seconds):
                await asyncio.shield(entry.outcome)
        except TimeoutError:
            raise DeadlinePassed(f"{instance.name!r} was not woken in time: {entry.why}") from None
        finally:
            entry.askers -= 1
            if not entry.askers:
                self._line.leave(entry)
            self._moves.call_off()
            self.look_soon()

    def renewed(self) -> None:
        self._moves.call_off()
        self.look_soon()

    def sleep_level(self, instance: Instance) -> int:
        """The level it may sleep at now, by the host's memory. Raises ``NoHostMemory`` when there is none."""
        return crowding.level_of(instance, self.books())

    def in_the_way(self, instance: Instance) -> Instance | None:
        there = self._fleet.instances
        name = crowding.in_the_way(instance, self.books(), there.values())
        return there[name] if name is not None else None

    # -- what can be seen ----------------------------------------------------------------------------------------

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        return self._line.entries

    @property
    def leaving(self) -> frozenset[str]:
        return frozenset(self._moves.leaving)

    def books(self) -> Books:
        instances = self.holders
        capacity = tenants.capacity(instances.values(), self.config.capacity, self._measured)
        return self._ledger.books(instances, capacity, self._moves.granted)

    @property
    def holders(self) -> Mapping[str, Instance]:
        """Those in the configuration, and those that have left it and still answer, or have a process."""
        departed = {name: one.instance for name, one in self._fleet.departed.items()}
        return {**departed, **self._fleet.instances} if departed else self._fleet.instances

    # -- looking and deciding ------------------------------------------------------------------------------------

    def look_soon(self) -> None:
        """An instance has changed, or could leave now, which is so after nearly every request.

        Looking costs the more the larger the fleet is. So it is done once for all that happens in one round of the
        loop, and in a large fleet with pauses; while nobody waits, once in a while.
        """
        loop = asyncio.get_running_loop()
        if not self._line:
            self._later = self._later or loop.call_later(SUM_SECONDS, self._look)
        elif self._due is None:
            size = len(self._fleet.instances)
            rested = self._looked_at + (size * LOOK_PAUSE if size > FEW else 0.0)
            self._due = loop.call_at(rested, self._look) if rested > loop.time() else loop.call_soon(self._look)

    def _look(self) -> None:
        for handle in (self._due, self._timer, self._later):
            if handle is not None:
                handle.cancel()
        self._due = self._timer = self._later = None
        self._looked_at = asyncio.get_running_loop().time()
        self._answer()
        self._line.keep(self._fleet.instances)
        wishes, asked = self._asked()
        books = self.books()
        if not asked and not books.is_overdrawn and not rivals.clash(self._fleet):
            return
        residents = self._residents(asked)
        outcome = decide(books, residents, asked, self._rules(), self._sleepers(residents))
        for step in outcome.steps:
            self._act(step, wishes)
        again = min(outcome.again, *(until - self._now() for until in self._moves.spared.values()), NEVER)
        if again < NEVER:
            self._timer = asyncio.get_running_loop().call_later(max(again, 0.01), self._look)

    def _asked(self) -> tuple[dict[str, Waiting], list[Wish]]:
        """Of each model the first in the line for whom somebody can be woken: others do not wait behind one without."""
        wishes: dict[str, Waiting] = {}
        asked = []
        for entry in self._line.entries:
            if entry.refusal or entry.model in wishes or entry.model not in self._fleet.models:
                continue
            if not self._is_served(entry) and (wish := self._wish(entry)) is not None:
                wishes[entry.model] = entry
                asked.append(wish)
        return wishes, asked

    def _is_served(self, entry: Waiting) -> bool:
        return any((one.state in AT_WORK and not one.firm) or one.name in self._moves.granted for one in entry.among)

    def _wish(self, entry: Waiting) -> Wish | None:
        now = self._now()
        views = {one.name: (one, one.view(now)) for one in entry.among if one.state in ASIDE and not one.hold}
        by_request = entry.cause == REQUEST
        needs = {
            name: tenants.footprint_of(one).awake
            for name, (one, view) in views.items()
            if not by_request or (view.wakes_on_request and view.wake_at <= now)
        }
        return Wish(entry.model, needs, now - entry.since) if needs else None

    def _residents(self, wishes: Sequence[Wish]) -> list[Resident]:
        wished = {name for wish in wishes for name in wish.needs}
        self._moves.forgive()
        granted, leaving = self._moves.granted, self._moves.leaving
        waited_for = {model for model, replicas in self._fleet.models.items() if replicas.waiting}
        return [
            tenants.resident(
                one,
                self.config,
                waited_for=one.config.model in waited_for,
                leaving=leaving[one.name].level if one.name in leaving else None,
                granted=one.name in granted,
                spared=self._is_spared(one),
            )
            for one in self.holders.values()
            if one.engine_state not in ASIDE or one.name in granted or one.name in wished
        ]

    def _sleepers(self, residents: Sequence[Resident]) -> list[Sleeper]:
        """Who may sink for others. That is asked only where somebody is who cannot leave without."""
        if not any(one.awake and one.keeps_weights for one in residents):
            return []
        return crowding.sleepers(
            one
            for model, replicas in self._fleet.models.items()
            if not replicas.waiting and not self.config.settings_of(model).pinned
            for one in replicas.instances
            if one.state is State.ASLEEP and not self._is_spared(one)
        )

    def _is_spared(self, instance: Instance) -> bool:
        return self._fleet.has_predecessor or instance.name in self._moves.spared

    def _rules(self) -> Rules:
        settings = self.config.residency
        return Rules(settings.max_wait_seconds, settings.min_awake_seconds, self.config.rivals)

    def _fits(self, instance: Instance) -> bool:
        """Beside all that is kept for those who wait."""
        wishes = [*self._asked()[1], Wish(instance.config.model, {instance.name: tenants.footprint_of(instance).awake})]
        return isinstance(decide(self.books(), self._residents(wishes), wishes, self._rules()).steps[-1], Admit)

    # -- acting --------------------------------------------------------------------------------------------------

    def _act(self, step: Step, wishes: dict[str, Waiting]) -> None:
        if isinstance(step, Evict):
            self._moves.evict(step)
        elif isinstance(step, Sink):
            self._moves.sink(step)
        entry = wishes.get(step.model)
        if entry is None:
            return
        if isinstance(step, Admit):
            entry.why = "it is being woken"
            self._grant(self._fleet.instances[step.name], entry.cause, entry)
        elif isinstance(step, Evict):
            entry.why = "room is being made"
        elif isinstance(step, Refuse):
            self._refuse(entry, step.reason)
        elif isinstance(step, Wait):
            self._wait(entry, step.cause, step.seconds)
        elif isinstance(step, Sink):
            self._wait(entry, step.cause)

    def _wait(self, entry: Waiting, cause: str, seconds: float = 0.0) -> None:
        if not entry.why:  # told once: what it waits for changes with every step of the others
            self._fleet.journal.tell(Happened.WAITS, entry.model, cause=entry.cause, detail=cause)
        entry.why, entry.until = cause, self._now() + seconds

    def _answer(self) -> None:
        """Tell who waits for just one instance, and not for our wake, what has become of it meanwhile."""
        for entry in self._line.entries:
            if entry.outcome is None:
                continue
            one = entry.among[0]
            if one.name in self._moves.granted:
                continue
            if one.state is State.READY:
                self._tell(entry, None)
            elif one.hold or one.state not in WAKEABLE | AT_WORK | {State.STARTING}:
                self._tell(entry, NotPossible(f"{one.name!r} is {one.state}: {one.problem}"))

    def _tell(self, entry: Waiting, failure: FleetError | None) -> None:
        """How the wake of one instance went. Whoever asks from now on asks anew."""
        self._line.leave(entry)
        if entry.outcome is None or entry.outcome.done():
            return
        if failure is None:
            entry.outcome.set_result(None)
        else:
            entry.outcome.set_exception(failure)

    def _refuse(self, entry: Waiting, reason: str) -> None:
        entry.refusal = reason
        told, at = self._refused.get(entry.model, ("", NEVER))
        if told != reason or self._now() - at >= REFUSED_SECONDS:
            self._refused[entry.model] = reason, self._now()
            self._fleet.journal.tell(Happened.REFUSED, entry.model, cause=entry.cause, detail=reason)
        if entry.outcome is not None:
            self._tell(entry, NoRoom(f"There can be no room for {entry.model!r}: {reason}."))
        self._fleet.models[entry.model].notify()

    def _grant(self, instance: Instance, cause: str, entry: Waiting | None) -> None:
        told = partial(self._tell, entry) if entry is not None and entry.outcome is not None else None
        self._moves.wake(instance.name, cause, told)

    def _is_wanted(self, step: Evict) -> bool:
        if step.rival:
            one = self._fleet.instances.get(step.name)
            return one is not None and rivals.has_rival(self._fleet, one.config.model)
        if not step.model:
            return self.books().is_overdrawn
        return any(entry.model == step.model for entry in self._line.entries)

    def _now(self) -> float:
        return self._fleet.clock()


@asynccontextmanager
async def arbitrated(
    fleet: Fleet, measured: Memory = NOTHING, seniority: Seniority = ALL_NEW
) -> AsyncIterator[Arbiter]:
    """Has an arbiter in charge of the fleet while open."""
    arbiter = Arbiter(fleet, measured, seniority)
    fleet.put_in_charge(arbiter)
    try:
        yield arbiter
    finally:
        await arbiter.aclose()
