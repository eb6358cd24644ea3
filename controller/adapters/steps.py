"""What to do next about one adapter. Pure: what is wanted and what is seen in, one step out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from controller.adapters.backoff import FRESH, Tries
from controller.adapters.placement import Seat, choose, surplus
from controller.adapters.spec import ALL

STABLE_SECONDS = 5.0
"""How long an instance must have been up, awake or asleep, before an adapter is put on it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """``artifact``: the folder to load from, None when it has still to be fetched.

    ``stale``: its source is to be looked at again, for it may hold something else by now.
    """

    replicas: int | str
    policy: str
    artifact: str | None
    deleting: bool = False
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """One instance. ``candidate``: the spec allows it. ``chosen``: it is to have the adapter.

    ``up_since``: when it came up, None while it is not; asleep is up. ``path``: where its adapter is loaded from.
    """

    seat: Seat
    candidate: bool = True
    up_since: float | None = None
    chosen: bool = False
    path: str | None = None
    tries: Tries = FRESH

    @property
    def name(self) -> str:
        return self.seat.instance

    @property
    def lost(self) -> bool:
        return self.up_since is None

    @property
    def stable_at(self) -> float:
        return float("inf") if self.up_since is None else self.up_since + STABLE_SECONDS


class Do(Enum):
    REMOVE = auto()
    """Out of the route, drained, unloaded."""
    FORGET = auto()
    """It is nowhere any more: delete it."""
    RELEASE = auto()
    """It will not come there: choose another instead."""
    CHOOSE = auto()
    FETCH = auto()
    LOOK = auto()
    """Whether the source holds what it held."""
    LOAD = auto()
    REPLACE = auto()
    FAIL = auto()
    """No candidate is left."""
    WAIT = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """``until``: look again then at the latest."""

    do: Do
    instances: tuple[str, ...] = ()
    until: float = float("inf")


def next_step(wanted: Wanted, seen: Sequence[Seen], now: float, chance: random.Random) -> Step:
    chosen = [one for one in seen if one.chosen]
    if wanted.deleting:
        return _removal(chosen, now) if chosen else Step(Do.FORGET)
    candidates = [one for one in seen if one.candidate]
    limit = len(candidates) if wanted.replicas == ALL else int(wanted.replicas)
    free = [one for one in candidates if not one.chosen and not one.tries.used_up]
    ready = [one for one in free if one.stable_at <= now]
    if step := _too_many(wanted, chosen, limit, now) or _hopeless(chosen, ready):
        return step
    if len(chosen) < limit and ready:
        picked = choose(wanted.policy, [one.seat for one in ready], limit - len(chosen), chance)
        if picked:
            return Step(Do.CHOOSE, picked)
    stable_at = min(
        (one.stable_at for one in free if len(chosen) < limit and one.stable_at > now), default=float("inf")
    )
    if not chosen:
        if candidates and all(one.tries.used_up for one in candidates):
            return Step(Do.FAIL)
        return Step(Do.WAIT, until=stable_at)
    return _loading(wanted, chosen, now, stable_at)


def _too_many(wanted: Wanted, chosen: Sequence[Seen], limit: int, now: float) -> Step | None:
    outside = [one for one in chosen if not one.candidate]
    if outside:
        return _removal(outside, now)
    if len(chosen) <= limit:
        return None
    first = surplus(wanted.policy, [one.seat for one in chosen], len(chosen))
    return _removal(sorted(chosen, key=lambda one: (one.path is not None, first.index(one.name)))[:1], now)


def _removal(leaving: Sequence[Seen], now: float) -> Step:
    """One at a time. An engine that would not unload it is told again after a while."""
    for one in leaving:
        if one.path is None or one.tries.used_up or one.tries.due(now):
            return Step(Do.REMOVE, (one.name,))
    return Step(Do.WAIT, until=min(one.tries.next_at for one in leaving))


def _hopeless(chosen: Sequence[Seen], others: Sequence[Seen]) -> Step | None:
    """One whose tries are used up; or, when there is another to take its place, one that is gone."""
    for one in chosen:
        if one.path is None and (one.tries.used_up or (one.lost and others)):
            return Step(Do.RELEASE, (one.name,))
    return None


def _loading(wanted: Wanted, chosen: Sequence[Seen], now: float, until: float) -> Step:
    behind = [one for one in chosen if one.path is None or one.path != wanted.artifact]
    due = [one for one in behind if one.tries.due(now)]
    until = min([until, *(one.tries.next_at for one in behind if one not in due and not one.tries.used_up)])
    if wanted.artifact is None:
        return Step(Do.FETCH, tuple(one.name for one in due)) if due else Step(Do.WAIT, until=until)
    if wanted.stale:
        return Step(Do.LOOK, tuple(one.name for one in chosen))
    for one in due:
        if one.seat.awake and not one.lost:
            return Step(Do.LOAD if one.path is None else Do.REPLACE, (one.name,))
    return Step(Do.WAIT, until=until)
