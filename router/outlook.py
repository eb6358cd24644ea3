"""What a request may expect that waits for its model: how many are ahead, why it waits, and for about how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.state import State
from controller.residency import tenants
from controller.residency.arbiter import WAKEABLE, Arbiter
from router.proxy.queue import Queue

SOONEST = 1.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """``position``: of the model among those that wait for room; 1 is next. ``seconds``: None when nobody can tell."""

    cause: str
    position: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        place = f", position {self.position}" if self.position else ""
        wait = f", about {self.seconds:.0f} s" if self.seconds is not None else ""
        return f"{self.cause}{place}{wait}"


class Outlooks:
    def __init__(self, fleet: Fleet, arbiter: Arbiter, queues: Mapping[str, Queue]) -> None:
        self._fleet = fleet
        self._arbiter = arbiter
        self._queues = queues

    def of(self, model: str, identity: bytes | None = None) -> Outlook | None:
        """None when nothing has to be waited for. ``identity``: of a request that may be in the model's queue."""
        queue = self._queues.get(model)
        if queue is not None and identity is not None:
            for ahead, waiter in enumerate(queue.waiters):
                if waiter.id == identity:
                    return Outlook("waiting for its turn", ahead + 1, queue.expected_wait(ahead))
        replicas = self._fleet.models.get(model)
        if replicas is None or any(one.state is State.READY for one in replicas.instances):
            return None
        for state, cause in CAUSES.items():
            found = [one for one in replicas.instances if one.state is state]
            if found:
                seconds = [left for one in found if (left := _remaining(one)) is not None]
                return Outlook(cause, seconds=min(seconds, default=None))
        return self._in_line(model)

    def _in_line(self, model: str) -> Outlook:
        """It sleeps: it is to be woken, or waits until there is room for it."""
        instances = self._fleet.models[model].instances
        asleep = [one for one in instances if one.state in WAKEABLE and not one.hold]
        seconds = min((tenants.wake_seconds(one) + one.remaining_sleep() for one in asleep), default=None)
        for position, entry in enumerate(self._arbiter.waiting, 1):
            if entry.model == model:
                more = max(0.0, entry.until - self._fleet.clock())
                return Outlook(entry.why or "asleep", position, None if seconds is None else seconds + more)
        if asleep:
            stopped = all(one.state is State.STOPPED for one in asleep)
            return Outlook("stopped" if stopped else "asleep", seconds=seconds)
        return Outlook(next((one.problem for one in instances if one.problem), "not there"))


CAUSES = {State.WAKING: "being woken", State.STARTING: "being started", State.DRAINING: "about to make room"}


def _remaining(instance: Instance) -> float | None:
    """None when it takes longer than it ever did."""
    spent = instance.clock() - instance.since if instance.state is not State.DRAINING else 0.0
    left = tenants.wake_seconds(instance, spent) - spent
    return max(SOONEST, left) if left > 0 else None
