"""Sleep by idleness and by hand. The ways to sleep and back are the fleet's; here is decided who goes when."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from weakref import WeakSet

from controller.config.model import SleepSettings
from controller.fleet.errors import FleetError, NotPossible, TooEarly, TransitionRefused
from controller.fleet.fleet import Fleet
from controller.fleet.instance import DEEPER, Instance
from controller.fleet.state import AWAKE, SLEEPING, State
from router.sleep.policy import Deeper, Idleness, deeper, is_candidate
from router.traffic.monitor import TrafficMonitor
from state.database import StateError

log = logging.getLogger(__name__)

IDLE, MANUAL = "idle", "manual"


class SleepManager:
    def __init__(self, fleet: Fleet, traffic: TrafficMonitor) -> None:
        self._fleet = fleet
        self._traffic = traffic
        self._unable: WeakSet[Instance] = WeakSet()

    # -- by idleness ---------------------------------------------------------------------------------------------

    def idle_seconds(self, instance: Instance) -> float:
        """Since its model was last asked, or since it became ready if that is later."""
        awake_for, traffic = instance.clock() - instance.ready_since, self._traffic.models.get(instance.config.model)
        return awake_for if traffic is None else min(awake_for, traffic.idle_seconds())

    def is_candidate(self, instance: Instance) -> bool:
        idleness = Idleness(
            instance.state, instance.engine.capabilities.sleep, instance.in_flight, self.idle_seconds(instance)
        )
        return is_candidate(idleness, instance.config.sleep)

    def candidates(self) -> list[str]:
        """Models of which every awake instance could be put to sleep now."""
        found = []
        for model, replicas in self._fleet.models.items():
            awake = [one for one in replicas.instances if one.state in AWAKE]
            if awake and all(self.is_candidate(one) for one in awake):
                found.append(model)
        return found

    async def run(self) -> None:
        """Put idle instances to sleep, and deeper, each looked at in its own interval. Runs until cancelled."""
        watched = [one for one in self._fleet.instances.values() if _goes_down(one.config.sleep)]
        async with asyncio.TaskGroup() as tasks:
            for instance in watched:
                tasks.create_task(self._watch(instance))

    async def _watch(self, instance: Instance) -> None:
        while True:
            await asyncio.sleep(instance.config.sleep.check_interval_seconds)
            try:
                if instance.state is State.ASLEEP:
                    await self._deeper(instance)
                elif instance not in self._unable and self._may_sleep(instance):
                    await self._make_way(instance)
                    await self._fleet.transitions[instance.name].sleep(
                        IDLE, instance.config.sleep.drain_timeout_seconds, wanted=lambda: self.is_candidate(instance)
                    )
            except NotPossible as unable:
                if instance.state is State.READY:  # it is not its state: it has no way to sleep
                    self._unable.add(instance)
                log.warning("%s", unable)
            except (FleetError, StateError) as refused:
                log.info("%s", refused)
            except Exception:
                log.exception("putting %s to sleep broke", instance.name)

    def _may_sleep(self, instance: Instance) -> bool:
        return instance.config.sleep.auto_sleep_enabled and self.is_candidate(instance)

    async def _deeper(self, instance: Instance) -> None:
        if not self._rests(instance):
            return
        transitions = self._fleet.transitions[instance.name]
        step = deeper(
            instance.level,
            instance.sleep_duration(),
            instance.engine.capabilities.levels,
            transitions.keeper.can(instance.name),
            instance.config.sleep,
        )
        if step is Deeper.STOP:
            await transitions.stop(IDLE, 0, wanted=lambda: self._rests(instance))
        elif step is Deeper.LEVEL_2:
            await self._sink(instance)

    def _rests(self, instance: Instance) -> bool:
        """It sleeps, and nobody waits for it: who does is not to wait for more than its wake."""
        return instance.state is State.ASLEEP and not self._fleet.models[instance.config.model].waiting

    async def _sink(self, instance: Instance) -> bool:
        """From level 1 to level 2, where there is room for that. Raises ``TransitionRefused``."""
        if not self._fleet.waker.help([instance], DEEPER):
            return False
        # Engines cannot drop what they have put aside: it has to come back first.
        transitions = self._fleet.transitions[instance.name]
        await transitions.wake(DEEPER)
        await transitions.sleep(DEEPER, 0, 2)
        return True

    async def _make_way(self, instance: Instance) -> None:
        """Where the host is full, those that were used before it sleep deeper, so that it need not."""
        try:
            while (one := self._fleet.waker.in_the_way(instance)) is not None and await self._sink(one):
                pass
        except FleetError as refused:
            log.info("the host's memory stays full: %s", refused)

    # -- by hand -------------------------------------------------------------------------------------------------

    async def sleep(self, instances: Sequence[Instance], cause: str = MANUAL) -> None:
        """Put those that are awake to sleep once they have drained. Raises ``TransitionRefused`` if one stays awake."""
        await self._find_out(instances)
        awake = [one for one in instances if one.state in AWAKE | {State.FALLING_ASLEEP}]
        asleep = [one for one in instances if one.state is State.ASLEEP]
        await self._each(
            awake or asleep or instances,
            lambda one: self._sleep_by_hand(one, cause),
        )

    async def _sleep_by_hand(self, instance: Instance, cause: str) -> None:
        await self._make_way(instance)
        await self._fleet.way_of(instance).sleep(cause, instance.config.sleep.drain_timeout_seconds)

    async def wake(self, instances: Sequence[Instance], *, force: bool) -> None:
        """Wake those that sleep. Raises ``TransitionRefused``; ``TooEarly`` before any is told, unless forced."""
        await self._find_out(instances)
        remaining = max((one.remaining_sleep() for one in instances), default=0.0)
        if remaining > 0 and not force:
            message = f"it must sleep for another {remaining:.1f} s (min_sleep_duration); force=true wakes it now"
            raise TooEarly(message, retry_after=remaining)
        asleep = [one for one in instances if one.state in SLEEPING]
        awake = [one for one in instances if one.state in AWAKE]
        await self._each(asleep or awake or instances, lambda one: self._fleet.waker.wake(one, MANUAL))

    async def _find_out(self, instances: Sequence[Instance]) -> None:
        """What they do, of those that a gateway that has just started has not seen yet."""
        unseen = [self._fleet.way_of(one) for one in instances if one.state is State.UNKNOWN]
        await asyncio.gather(*(one.settle() for one in unseen))

    async def _each(self, instances: Sequence[Instance], act: Callable[[Instance], Awaitable[None]]) -> None:
        outcomes = await asyncio.gather(*(act(one) for one in instances), return_exceptions=True)
        refusals = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for refusal in refusals:
            if not isinstance(refusal, TransitionRefused):
                raise refusal
        if refusals:
            raise refusals[0]


def _goes_down(settings: SleepSettings) -> bool:
    return (
        settings.auto_sleep_enabled
        or settings.level2_after_seconds is not None
        or settings.stop_after_seconds is not None
    )
