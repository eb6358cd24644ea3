"""The wakes, evictions and sinkings that the arbiter has decided on, until they have ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from controller.fleet.errors import FleetError
from controller.fleet.fleet import Fleet
from controller.fleet.instance import DEEPER, EVICTED, NOT_NEEDED, Instance
from controller.fleet.journal import Happened
from controller.fleet.state import State
from controller.fleet.transitions import Transitions
from controller.residency.steps import Evict, Sink
from state.database import StateError

log = logging.getLogger(__name__)

LINGER_SECONDS = 2.0
"""How long an idle engine may take to notice that it is idle, before somebody else is asked to leave."""

SPARED_SECONDS = 0.5
"""How long one that could not leave is left in peace; after a drain in vain, for as long as that took."""

Told = Callable[[FleetError | None], None]
"""How a wake went."""


class Moves:
    """``granted``: who is being woken. ``leaving``: who is on the way to sleep, or to a deeper one, and what for.

    ``spared``: who could not, and until when it is not asked again, on the fleet's clock.
    """

    def __init__(self, fleet: Fleet, is_wanted: Callable[[Evict], bool], look_soon: Callable[[], None]) -> None:
        self.granted: set[str] = set()
        self.leaving: dict[str, Evict | Sink] = {}
        self.spared: dict[str, float] = {}
        self._fleet = fleet
        self._is_wanted = is_wanted
        self._look_soon = look_soon
        self._tasks: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def forgive(self) -> None:
        """Those that have been left in peace for long enough."""
        now = self._fleet.clock()
        self.spared = {name: until for name, until in self.spared.items() if until > now}

    # -- waking --------------------------------------------------------------------------------------------------

    def wake(self, name: str, cause: str, told: Told | None = None) -> None:
        self.granted.add(name)
        self._begin(self._wake(self._fleet.transitions[name], cause, told))

    async def _wake(self, transitions: Transitions, cause: str, told: Told | None) -> None:
        failure: FleetError | None = None
        try:
            await self._granted_wake(transitions, cause)
        except FleetError as refused:
            failure = refused
            log.warning("%s", refused)
        if told is not None:
            told(failure)

    async def _granted_wake(self, transitions: Transitions, cause: str) -> None:
        try:
            await transitions.wake(cause)
        finally:
            self.granted.discard(transitions.instance.name)
            self._look_soon()

    # -- leaving -------------------------------------------------------------------------------------------------

    def evict(self, step: Evict) -> None:
        self.leaving[step.name] = step
        self._begin(self._evict(step, self._fleet.transitions[step.name]))

    async def _evict(self, step: Evict, transitions: Transitions) -> None:
        instance, began = transitions.instance, self._fleet.clock()
        patience = instance.config.sleep.drain_timeout_seconds if step.firmly else LINGER_SECONDS
        instance.tell(Happened.EVICTED, cause=step.cause, level=step.level)
        try:
            await transitions.sleep(
                EVICTED, patience, step.level, wanted=lambda: self._still(step, instance), firm=step.firmly
            )
        except (FleetError, StateError) as refused:
            log.info("%s did not leave (%s): %s", instance.name, step.cause, refused)
        finally:
            if instance.state is State.READY:
                self._spare(instance, began)
            self._has_left(step)

    def _still(self, step: Evict, instance: Instance) -> bool:
        """Whether it is still to leave, as the turn comes to it."""
        if self._fleet.instances.get(step.name) is not instance or not self._is_wanted(step):
            return False
        return step.firmly or self._is_idle(instance)

    def _is_idle(self, instance: Instance) -> bool:
        replicas = self._fleet.models.get(instance.config.model)
        return instance.in_flight == 0 and (replicas is None or replicas.waiting == 0)

    def call_off(self) -> None:
        """Whoever was to leave for a model that nobody waits for any more stays, if its engine has not been told."""
        for name, step in self.leaving.items():
            if name in self._fleet.instances and isinstance(step, Evict) and not self._is_wanted(step):
                self._fleet.instances[name].call_off(NOT_NEEDED)

    def _spare(self, instance: Instance, began: float) -> None:
        """It could not, for longer the longer that took; one that would not wake, until it may be tried again."""
        now = self._fleet.clock()
        self.spared[instance.name] = max(now + SPARED_SECONDS, now + now - began, instance.view(now).wake_at)

    def _has_left(self, step: Evict | Sink) -> None:
        if self.leaving.get(step.name) is step:  # else it was told to sink as soon as it slept
            del self.leaving[step.name]
        self._look_soon()

    # -- sinking -------------------------------------------------------------------------------------------------

    def sink(self, step: Sink) -> None:
        self.leaving[step.name] = step
        self.granted.add(step.name)
        self._begin(self._sink(step, self._fleet.transitions[step.name]))

    async def _sink(self, step: Sink, transitions: Transitions) -> None:
        """Engines cannot drop what they have put aside: it has to come back first."""
        began = self._fleet.clock()
        try:
            await self._granted_wake(transitions, DEEPER)
            await transitions.sleep(
                DEEPER, LINGER_SECONDS, step.level, wanted=lambda: self._is_idle(transitions.instance)
            )
        except (FleetError, StateError) as refused:
            log.info("%s keeps its weights, which were to go for %s: %s", step.name, step.model, refused)
        finally:
            if transitions.instance.state is not State.ASLEEP or transitions.instance.level < step.level:
                self._spare(transitions.instance, began)
            self._has_left(step)

    # -- their tasks ---------------------------------------------------------------------------------------------

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (broken := task.exception()) is not None:
            log.error("a wake, an eviction or a sinking broke", exc_info=broken)
