"""What a request that finds its model in some state should do. Pure: values in, a decision out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from controller.fleet.errors import (
    DeadlinePassed,
    GivenUp,
    KeptAsleep,
    StoppedByHand,
    Unavailable,
    Unreachable,
    WakeFailed,
)
from controller.fleet.state import Hold, State

GIVE_UP_AFTER = 3
"""Failed wakes in a row after which waiting requests are told, instead of trying on until their deadline."""

PATIENCE = 1.0
"""Seconds for which a look at a failed instance stays valid."""


@dataclass(frozen=True, slots=True)
class View:
    """One replica as it is now. Times on the caller's clock, in seconds.

    ``attended_until``: until then somebody may be about to start it again, if it has failed.
    ``firm``: it drains for another model, and is not called back.
    ``wake_at``: earliest time for a wake, from the minimum sleep and from the back-off after failed ones.
    """

    state: State
    wakes_on_request: bool = True
    wake_at: float = 0.0
    wake_failures: int = 0
    looked_at: float = 0.0
    problem: str = ""
    firm: bool = False
    hold: Hold = Hold.NONE
    attended_until: float = float("-inf")


class Act(Enum):
    SERVE = auto()
    CALL_OFF = auto()
    WAKE = auto()
    LOOK = auto()
    WAIT = auto()


@dataclass(frozen=True, slots=True)
class Decision:
    """``replicas``: the indices it is about. ``until``: look again then at the latest."""

    act: Act
    replicas: tuple[int, ...] = ()
    until: float = float("inf")


def decide(model: str, replicas: Sequence[View], now: float, deadline: float) -> Decision:
    """Raises ``Unavailable`` when waiting cannot help, or no longer."""
    by_state: dict[State, list[int]] = {}
    for index, view in enumerate(replicas):
        by_state.setdefault(view.state, []).append(index)
    if State.READY in by_state:
        return Decision(Act.SERVE, tuple(by_state[State.READY]))
    draining = [index for index in by_state.get(State.DRAINING, ()) if not replicas[index].firm]
    if draining:
        return Decision(Act.CALL_OFF, tuple(draining[:1]))
    if now >= deadline:
        raise DeadlinePassed(f"{model!r} was not ready in time", retry_after=1.0)
    stopped = [] if State.STARTING in by_state else by_state.get(State.STOPPED, [])
    sleeping = [*by_state.get(State.ASLEEP, ()), *stopped]
    asleep = [index for index in sleeping if replicas[index].wakes_on_request and not replicas[index].hold]
    if State.WAKING not in by_state and asleep:
        return _wake(model, replicas, asleep, now, deadline)
    if by_state.keys() & {State.DRAINING, State.WAKING, State.FALLING_ASLEEP, State.STARTING, State.UNKNOWN}:
        return Decision(Act.WAIT)
    if any(not replicas[index].hold for index in sleeping):
        raise KeptAsleep(f"{model!r} is asleep, and wakeup_on_request is off: wake it with POST /model/wake")
    if not replicas:
        return Decision(Act.WAIT)
    lost = [index for index, view in enumerate(replicas) if not view.hold]
    attended = max((replicas[index].attended_until for index in lost), default=now)
    if attended > now:
        return Decision(Act.WAIT, until=attended)
    stale = tuple(index for index in lost if now - replicas[index].looked_at > PATIENCE)
    if stale:
        return Decision(Act.LOOK, stale)
    if not lost:
        raise _held(model, replicas)
    raise Unreachable(f"no engine of {model!r} can be reached: {replicas[lost[0]].problem}")


def _held(model: str, replicas: Sequence[View]) -> Unavailable:
    """All of them are."""
    start = f"POST /action/start/{model}, or launch.py --restart NAME, starts it"
    given_up = next((view for view in replicas if view.hold is Hold.GIVEN_UP), None)
    if given_up is not None:
        return GivenUp(f"{model!r} has failed: {given_up.problem}; {start}")
    return StoppedByHand(f"{model!r} is stopped: {replicas[0].problem}; {start}")


def _wake(model: str, replicas: Sequence[View], asleep: Sequence[int], now: float, deadline: float) -> Decision:
    """``replicas`` that could be woken now, the lightest sleeper first."""
    soonest = min(asleep, key=lambda index: replicas[index].wake_at)
    view = replicas[soonest]
    due = [index for index in asleep if replicas[index].wake_at <= now]
    if due:
        return Decision(Act.WAKE, tuple(sorted(due, key=lambda index: replicas[index].state is State.STOPPED)))
    remaining = view.wake_at - now
    too_late = view.wake_at > deadline
    if view.wake_failures >= GIVE_UP_AFTER or (view.wake_failures and too_late):
        raise WakeFailed(f"{model!r} cannot be woken: {view.problem}", retry_after=remaining)
    if too_late:
        raise Unavailable(f"{model!r} has to sleep for another {remaining:.0f} s", retry_after=remaining)
    return Decision(Act.WAIT, (soonest,), until=view.wake_at)
