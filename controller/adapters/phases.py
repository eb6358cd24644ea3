"""The phases of an adapter, and what is said on the way: in the words that ModelAdapters have. Pure.

Pending → Scheduled → Loading → Bound → Running; from each to Failed and back, and at last Deleting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

NAMESPACE = "default"


class Phase(StrEnum):
    PENDING = "Pending"
    """No instance can have it yet."""
    SCHEDULED = "Scheduled"
    """Instances are chosen."""
    LOADING = "Loading"
    """It is being fetched, or loaded by an engine."""
    BOUND = "Bound"
    """An engine has it; it is not routed to yet."""
    RUNNING = "Running"
    """Requests for it are answered."""
    FAILED = "Failed"
    """No instance is left to try."""
    DELETING = "Deleting"


_FORWARD = (Phase.PENDING, Phase.SCHEDULED, Phase.LOADING, Phase.BOUND, Phase.RUNNING)
_ANYWHERE = frozenset({Phase.FAILED, Phase.DELETING, Phase.PENDING})

NEXT: Mapping[Phase, frozenset[Phase]] = {
    Phase.PENDING: frozenset({Phase.SCHEDULED}) | _ANYWHERE - {Phase.PENDING},
    Phase.SCHEDULED: frozenset({Phase.LOADING}) | _ANYWHERE,
    Phase.LOADING: frozenset({Phase.BOUND, Phase.SCHEDULED}) | _ANYWHERE,
    Phase.BOUND: frozenset({Phase.RUNNING, Phase.SCHEDULED}) | _ANYWHERE,
    Phase.RUNNING: frozenset({Phase.SCHEDULED}) | _ANYWHERE,
    Phase.FAILED: frozenset({Phase.PENDING, Phase.SCHEDULED, Phase.DELETING}),
    Phase.DELETING: frozenset(),
}
"""The arrows. An adapter that comes back from Failed, or loses its instances, starts at Pending or Scheduled."""


def path(before: Phase, wanted: Phase) -> tuple[Phase, ...]:
    """The phases to go through from ``before``, ending in ``wanted``; empty when it is there.

    Several at once are noted one after the other: a gate may load what was only scheduled.
    """
    if before is wanted:
        return ()
    if wanted in NEXT[before]:
        return (wanted,)
    if before is Phase.DELETING:
        raise ValueError(f"an adapter that is being deleted cannot become {wanted}")
    first = (
        Phase.SCHEDULED if before not in _FORWARD or _order(wanted) <= _order(before) else _FORWARD[_order(before) + 1]
    )
    return (first, *path(first, wanted))


def _order(phase: Phase) -> int:
    return _FORWARD.index(phase)


@dataclass(frozen=True, slots=True)
class Condition:
    """``status``: True, False or Unknown. ``since``: epoch seconds at which it became that."""

    type: str
    status: str
    reason: str
    message: str
    since: float = 0.0


def with_condition(conditions: Sequence[Condition], new: Condition, now: float) -> tuple[Condition, ...]:
    """One condition of each type; its time changes only with its status."""
    old = next((one for one in conditions if one.type == new.type), None)
    since = old.since if old is not None and old.status == new.status else now
    changed = replace(new, since=since)
    if old is None:
        return (*conditions, changed)
    return tuple(changed if one is old else one for one in conditions)


def starting() -> Condition:
    return Condition("Initialized", "Unknown", "ModelAdapterPending", "Starting reconciliation")


def scheduled(name: str, instances: Sequence[str]) -> Condition:
    return Condition("Scheduled", "True", "Scheduled", f"{_full(name)} {selection(instances)}")


def rescheduling() -> Condition:
    return Condition("Scheduled", "False", "Rescheduling", "Need to reschedule adapter on available pods")


def rescheduled(instance: str) -> Condition:
    return Condition("Scheduled", "True", "Rescheduled", f"Adapter successfully loaded on new pod {instance}")


def scaled(name: str, replicas: int) -> Condition:
    return Condition("Scheduled", "True", "Scaled", f"{_full(name)} scaled to {replicas} replicas")


def bound(name: str, instances: Sequence[str]) -> Condition:
    return Condition("Bound", "True", "Bound", f"{_full(name)} is loaded on [{', '.join(instances)}]")


def not_bound(name: str) -> Condition:
    return Condition("Bound", "False", "ModelAdapterLoadingError", f"{_full(name)} loading failed")


def ready(name: str) -> Condition:
    return Condition("Ready", "True", "ModelAdapterAvailable", f"{_full(name)} is ready")


def migrating() -> Condition:
    return Condition("Ready", "False", "AdapterMigrating", "Adapter pod removed, migrating to new pod")


def unavailable(why: str) -> Condition:
    return Condition("Ready", "False", "ModelAdapterUnavailable", why)


def loading_failed(problems: Mapping[str, str]) -> Condition:
    told = "; ".join(f"pod {instance}: {problem}" for instance, problem in problems.items())
    return Condition("Ready", "False", "ModelAdapterLoadingError", f"Loading failed on all pods: {told}")


def unusable(problem: str) -> Condition:
    return Condition("Ready", "False", "ValidationFailed", problem)


def selection(instances: Sequence[str]) -> str:
    return f"has selected {len(instances)} pods for scheduling: [{' '.join(instances)}]"


def _full(name: str) -> str:
    return f"ModelAdapter {NAMESPACE}/{name}"
