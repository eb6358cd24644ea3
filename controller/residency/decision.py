"""Who comes and who goes: which models may wake now, and who must leave for them. Pure.

Models wait in one line. Whoever is first takes what is free, or has others leave for it; what it will need is kept for
it, so nobody behind it takes the same memory. Models that need other places pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from controller.residency.books import Books, level_that_fits
from controller.residency.memory import HOST, Memory, gib, lacks, minus, total
from controller.residency.sleepers import Sleeper, first_to_sink
from controller.residency.steps import Admit, Evict, Refuse, Sink, Step, Wait
from controller.residency.victims import Candidate, choose, helps

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Rules:
    """``groups``: model -> the models that may not be awake with it."""

    max_wait_seconds: float = 15.0
    min_awake_seconds: float = 10.0
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resident:
    """One instance that may be awake, or is to be.

    ``asleep``: what it would hold asleep, by level, the preferred one first; empty if it cannot sleep.
    ``leaving``: the level at which it is on its way to sleep.
    ``settled``: awake and ready, so it can be told to leave.
    ``idle``: nothing is in flight on it, and nobody waits for it.
    ``awake_seconds``, ``idle_seconds``: since it became ready, since it was used last.
    ``wake_seconds``: what it takes to bring it back. ``priority``: each step doubles its worth.
    ``departed``: it is out of the configuration, so nobody here can tell it to leave.
    """

    name: str
    model: str
    awake: bool = True
    asleep: Mapping[int, Memory] = field(default_factory=dict)
    leaving: int | None = None
    settled: bool = True
    idle: bool = True
    pinned: bool = False
    awake_seconds: float = NEVER
    idle_seconds: float = 0.0
    wake_seconds: float = 1.0
    priority: int = 0
    departed: bool = False

    @property
    def keeps_weights(self) -> bool:
        """Whether it can only sleep with them in the host."""
        return bool(self.asleep) and all(amount.get(HOST, 0) > 0 for amount in self.asleep.values())


@dataclass(frozen=True, slots=True)
class Wish:
    """A model that is to wake. ``needs``: what each replica that could be woken would hold; ``waits``: for so long."""

    model: str
    needs: Mapping[str, Memory]
    waits: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``again``: seconds until time alone may change it."""

    steps: tuple[Step, ...]
    again: float = NEVER


def decide(
    books: Books,
    residents: Sequence[Resident],
    wishes: Sequence[Wish],
    rules: Rules,
    sleepers: Sequence[Sleeper] = (),
) -> Outcome:
    """``wishes``: first come first. ``residents``: all that are awake or may be, and the wished-for.

    ``sleepers``: those that may be told to drop their weights.
    """
    room = _Room(books, residents, rules, sleepers)
    steps: list[Step] = [*room.part(), *room.relieve()]
    for wish in wishes:
        steps += room.serve(wish)
    return Outcome(tuple(steps), room.again)


class _Room:
    """What is left for those who come later in the line."""

    def __init__(self, books: Books, residents: Sequence[Resident], rules: Rules, sleepers: Sequence[Sleeper]) -> None:
        self._books = books
        self._rules = rules
        self._sleepers = sleepers
        self._residents = {one.name: one for one in residents}
        self._free = books.free
        self._coming: dict[str, int] = {}
        self._leaving: set[str] = set()
        self.again = NEVER
        self._ripe = NEVER
        self._crowded = False
        for one in residents:
            if one.leaving is not None:
                self._leave(one, one.leaving)

    def part(self) -> list[Evict]:
        """Who leaves because others are awake with which they may not be: all but one, if they are idle."""
        steps = []
        grouped = [one for one in self._residents.values() if one.settled and one.model in self._rules.groups]
        for one in sorted((one for one in grouped if one.name not in self._leaving), key=_worth):
            rivals = [other for other in self._rivals(one.model) if other.settled and other.name not in self._leaving]
            if rivals and self._may_leave(one, busy=False):
                steps.append(self._evict(one, "", firmly=False, rival=rivals[0].name))
        return steps

    def relieve(self) -> list[Evict]:
        """Who leaves because more is held than there is; all that are idle where they are not enough."""
        left = total((self._free, self._coming))
        missing = {place: -left[place] for place in self._books.capacity if left.get(place, 0) < 0}
        if not missing:
            return []
        candidates = [one for one in self._candidates(busy=False) if helps(missing, one)]
        found = self._choose(missing, candidates)
        leaving = [one for _, _, one in candidates] if found is None else found
        return [self._evict(one, "", firmly=False) for one in leaving if self._level(one, self._free) is not None]

    def serve(self, wish: Wish) -> list[Step]:
        reasons = {name: self._never(wish, name) for name in wish.needs}
        possible = [name for name, reason in reasons.items() if reason is None]
        if not possible:
            return [Refuse(wish.model, next(iter(reasons.values())) or "")]
        for name in possible:
            if self._fits(wish, name):
                self._take(wish, name)
                return [Admit(wish.model, name)]
        self._ripe, self._crowded = NEVER, False
        best = self._best(wish, possible, busy=False)
        aged = wish.waits >= self._rules.max_wait_seconds
        if best is None and aged:
            best = self._best(wish, possible, busy=True)
        elif best is None:
            self.again = min(self.again, self._rules.max_wait_seconds - wish.waits)
        if best is None:
            sinking = self._sink(wish, possible, busy=aged) if self._crowded else []
            self._take(wish, possible[0])
            return [*sinking] or [self._wait(wish)]
        victims, name = best
        steps = [self._evict(one, wish.model, firmly=aged) for one in victims]
        self._take(wish, name)
        return [*steps] or [self._wait(wish)]

    # -- what fits -----------------------------------------------------------------------------------------------

    def _more(self, name: str, need: Memory) -> dict[str, int]:
        """What waking takes beyond what it holds already."""
        return minus(need, self._books.held.get(name, {}))

    def _fits(self, wish: Wish, name: str) -> bool:
        return not self._rivals(wish.model) and not lacks(self._more(name, wish.needs[name]), self._free)

    def _rivals(self, model: str) -> list[Resident]:
        """Who may not be awake with it, and is."""
        others = self._rules.groups.get(model, frozenset())
        return [one for one in self._residents.values() if one.awake and one.model in others] if others else []

    def _take(self, wish: Wish, name: str) -> None:
        """Keep for it what it needs, also while others must leave first."""
        self._free = _less(self._free, self._more(name, wish.needs[name]))
        self._residents[name] = replace(self._residents[name], awake=True, settled=False)

    def _evict(self, one: Resident, model: str, *, firmly: bool, rival: str = "") -> Evict:
        level = self._level(one, self._free)
        assert level is not None
        self._leave(one, level)
        return Evict(one.name, level, model, firmly, rival)

    def _leave(self, one: Resident, level: int) -> None:
        """What it gives back is on its way; what it takes elsewhere, in the host, is taken from now on."""
        held, asleep = self._books.held[one.name], one.asleep[level]
        given = {place: size for place, size in minus(held, asleep).items() if size > 0}
        self._coming, self._free = total((self._coming, given)), _less(self._free, minus(asleep, held))
        self._leaving.add(one.name)

    # -- who leaves ----------------------------------------------------------------------------------------------

    def _best(self, wish: Wish, possible: Sequence[str], *, busy: bool) -> tuple[list[Resident], str] | None:
        """Who leaves, and for which replica, where that costs least."""
        plans = [(plan, name) for name in possible if (plan := self._plan(wish, name, busy=busy)) is not None]
        return min(plans, key=lambda plan: sum(_worth(one) for one in plan[0]), default=None)

    def _plan(self, wish: Wish, name: str, *, busy: bool) -> list[Resident] | None:
        """Who leaves for it beyond those on their way; None when that is not possible now."""
        rivals = [one for one in self._rivals(wish.model) if one.name not in self._leaving]
        if any(not self._may_leave(one, busy) for one in rivals):
            return None
        promised = total((self._free, self._coming, *(self._frees(one) for one in rivals)))
        free = {place: promised.get(place, 0) for place in self._books.capacity}
        missing = lacks(self._more(name, wish.needs[name]), free)
        return self._choose(missing, [one for one in self._candidates(busy) if one[2] not in rivals], rivals)

    def _choose(
        self, missing: Memory, candidates: Sequence[Candidate[Resident]], others: Sequence[Resident] = ()
    ) -> list[Resident] | None:
        """The best set beside ``others``, who leave too, of which each one has a level to sleep at."""
        while (found := choose(missing, candidates) if missing else []) is not None:
            leaving = sorted([*others, *found], key=lambda one: len(one.asleep))  # who has no choice goes first
            if (crowded := self._crowded_out(leaving)) is None:
                return leaving
            self._crowded = True
            if crowded in others:
                return None
            candidates = [one for one in candidates if one[2] is not crowded]
        return None

    def _crowded_out(self, leaving: Sequence[Resident]) -> Resident | None:
        """The first for whom the host has no memory any more, once it has taken in those before."""
        free = self._free
        for one in leaving:
            level = self._level(one, free)
            if level is None:
                return one
            free = _less(free, minus(one.asleep[level], self._books.held[one.name]))
        return None

    def _candidates(self, busy: bool) -> list[Candidate[Resident]]:
        staying = (one for one in self._residents.values() if one.name not in self._leaving)
        return [(_worth(one), self._frees(one), one) for one in staying if self._may_leave(one, busy)]

    def _may_leave(self, one: Resident, busy: bool) -> bool:
        if not one.awake or not one.settled or one.pinned or not one.asleep or not (one.idle or busy):
            return False
        young = self._rules.min_awake_seconds - one.awake_seconds
        if young > 0:
            self.again, self._ripe = min(self.again, young), min(self._ripe, young)
            return False
        if self._level(one, self._free) is None:
            self._crowded = True
            return False
        return True

    def _frees(self, one: Resident) -> dict[str, int]:
        """Of one that may leave."""
        level = self._level(one, self._free)
        assert level is not None
        return minus(self._books.held[one.name], one.asleep[level])

    def _level(self, one: Resident, free: Memory) -> int | None:
        """The preferred level, or the next one down if its memory in the host is not there; None if no level's is."""
        return level_that_fits(one.asleep, self._books.held[one.name], free)

    # -- who drops weights ---------------------------------------------------------------------------------------

    def _sink(self, wish: Wish, possible: Sequence[str], *, busy: bool) -> list[Sink]:
        """Those used least recently, if with their room in the host there is a plan. Each needs room to wake for it."""
        roomier = copy(self)
        frees = sum(one.frees.get(HOST, 0) for one in self._sleepers if self._may_sink(one))
        roomier._free = {**self._free, HOST: self._free.get(HOST, 0) + self._coming.get(HOST, 0) + frees}
        best = roomier._best(wish, possible, busy=busy)
        short = self._short(best[0]) if best is not None else 0
        steps = []
        while short > 0:
            first = first_to_sink({HOST: short}, NEVER, [one for one in self._sleepers if self._may_sink(one)])
            if first is None:
                break
            short -= first.frees[HOST]
            self._free, self._coming = _less(self._free, first.needs), total((self._coming, first.needs, first.frees))
            self._residents[first.name] = Resident(first.name, first.model, settled=False)
            steps.append(Sink(first.name, first.level, wish.model))
        return steps

    def _may_sink(self, one: Sleeper) -> bool:
        return one.name not in self._residents and not self._rivals(one.model) and not lacks(one.needs, self._free)

    def _short(self, leaving: Sequence[Resident]) -> int:
        """What the host has too little for those, beyond what is coming."""
        free = self._free
        for one in leaving:
            level = self._level(one, free) or max(one.asleep)
            free = _less(free, minus(one.asleep[level], self._books.held[one.name]))
        return -free.get(HOST, 0) - self._coming.get(HOST, 0)

    # -- what can never be ---------------------------------------------------------------------------------------

    def _never(self, wish: Wish, name: str) -> str | None:
        """Why it will not fit however long it waits; None if it may."""
        for place, size in wish.needs[name].items():
            capacity = self._books.capacity.get(place)
            if capacity is not None and size > capacity - (kept := self._kept(place, name)):
                return _arithmetic(name, place, size, capacity, kept)
        pinned = [one.model for one in self._rivals(wish.model) if one.pinned]
        if pinned:
            return f"{wish.model!r} may not be awake with {pinned[0]!r}, which is pinned"
        return None

    def _kept(self, place: str, name: str) -> int:
        """What others than ``name`` hold there once all have left that ever may."""
        held = self._books.held
        kept = self._books.used.get(place, 0) - held[name].get(place, 0)
        for one in self._residents.values():
            possible = [amount for amount in one.asleep.values() if not lacks(amount, self._books.capacity)]
            if one.name != name and one.awake and not one.pinned and possible:
                asleep = min(possible, key=lambda amount: sum(amount.values()))
                kept -= held[one.name].get(place, 0) - asleep.get(place, 0)
        return kept

    def _wait(self, wish: Wish) -> Wait:
        if self._coming:
            return Wait(wish.model, "room is being made")
        patience = max(0.0, self._rules.max_wait_seconds - wish.waits)
        if self._ripe < patience:
            return Wait(wish.model, "who could leave has only just woken", self._ripe)
        if left := [one.name for one in self._residents.values() if one.departed and one.idle]:
            return Wait(wish.model, f"{left[0]!r} is not in the configuration any more, but still runs", patience)
        if self._crowded:
            return Wait(wish.model, "the host has no memory for who could leave", patience)
        return Wait(wish.model, "everybody who could leave is busy", patience)


def _less(free: Memory, taken: Memory) -> dict[str, int]:
    """What is free once that is taken, where it is more than 0. A place of which nothing is known has no limit."""
    return {place: size - max(0, taken.get(place, 0)) for place, size in free.items()}


def _worth(one: Resident) -> float:
    """What its leaving is expected to cost: its wake (a second at least), the sooner needed the less it is idle."""
    idle = 1.0 + (one.idle_seconds if one.idle else 0.0)
    return max(one.wake_seconds, 1.0) * math.pow(2.0, one.priority) / idle


def _arithmetic(name: str, place: str, need: int, capacity: int, kept: int) -> str:
    stays = f", and {gib(kept)} stay with those that are pinned, asleep, or cannot sleep" if kept else ""
    return f"{name!r} needs {gib(need)} on {place}, which has {gib(capacity)}{stays}"
