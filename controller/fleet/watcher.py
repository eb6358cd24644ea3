"""Keeps looking at one instance: is it still as the record says, and does it work?"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection, Mapping

from controller.fleet.circuit import Circuit
from controller.fleet.instance import Instance
from controller.fleet.silence import Silence
from controller.fleet.state import AWAKE, State
from controller.fleet.transitions import Transitions
from runtime.engines.base import EngineError

log = logging.getLogger(__name__)

LOOK_SECONDS: Mapping[State, float] = {State.UNKNOWN: 0.5, State.STARTING: 0.5, State.FAILED: 2.0}
"""How often an instance in such a state is looked at."""

STEADY_SECONDS = 5.0
OPEN_SECONDS = 1.0
"""In any other state; and while its circuit is open."""

MOST_LOOKS = 100
"""A second, at those that are steady, and as many at the others: in a large fleet each is looked at less often."""


def wanted_pause(instance: Instance) -> float:
    """Seconds until an instance should be looked at again."""
    if instance.breaker.circuit is Circuit.OPEN:
        return OPEN_SECONDS
    return LOOK_SECONDS.get(instance.state, STEADY_SECONDS)


def look_pause(wanted: float, fleet: int, hurried: int) -> float:
    """The same, for one of a ``fleet`` of so many, so many of which are ``hurried``: not steady."""
    return max(wanted, (fleet if wanted >= STEADY_SECONDS else hurried) / MOST_LOOKS)


class Watcher:
    """``fleet``: all instances, this one among them. ``hurried``: those not steady, as all watchers last found."""

    def __init__(self, transitions: Transitions, fleet: Collection[Instance], hurried: set[Instance]) -> None:
        self._transitions = transitions
        self._instance = transitions.instance
        self._fleet = fleet
        self._hurried = hurried
        self._silence = Silence()
        self._served = 0
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        self._instance.watchers.append(self._changed.set)
        try:
            while True:
                await self._rest(random.uniform(0.8, 1.2))
                await self.look()
        finally:
            self._instance.watchers.remove(self._changed.set)
            self._hurried.discard(self._instance)

    async def _rest(self, share: float) -> None:
        """Until the next look is due: sooner, if it comes into a state in which it is looked at more often."""
        began = asyncio.get_running_loop().time()
        while (left := began + share * self._pause() - asyncio.get_running_loop().time()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def look(self) -> None:
        """Look once. Raises nothing."""
        if self._instance.state not in AWAKE:
            self._silence = Silence()
        try:
            if self._transitions.under_way:
                return
            if self._instance.state in LOOK_SECONDS:
                await self._transitions.settle()
            else:
                await self._observe()
                await self._listen()
        except Exception:
            log.exception("looking at %s broke", self._instance.name)

    def _pause(self) -> float:
        wanted = wanted_pause(self._instance)
        if wanted < STEADY_SECONDS:
            self._hurried.add(self._instance)
        else:
            self._hurried.discard(self._instance)
        return look_pause(wanted, len(self._fleet), len(self._hurried))

    async def _observe(self) -> None:
        instance, served = self._instance, self._served
        self._served = instance.served
        if instance.state is State.READY and instance.served != served:
            instance.looked_at = instance.clock()  # what has served since the last look is up and awake
        else:
            await self._transitions.observe()

    async def _listen(self) -> None:
        """Find out whether it does anything, and let its circuit rest if so. A hung engine may well look healthy."""
        instance = self._instance
        if instance.state not in AWAKE:
            return
        if self._silence.suspects(instance.in_flight, instance.answers, instance.clock()):
            pulse = await self._pulse()
            if self._silence.lasts(pulse, instance.clock()) >= 1:
                instance.fell_silent(f"it has {instance.in_flight} requests and does nothing")
                return
        instance.rest()

    async def _pulse(self) -> float | None:
        try:
            return await self._instance.engine.pulse()
        except EngineError:
            return None
