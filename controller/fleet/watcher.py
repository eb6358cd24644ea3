"""Keeps looking at one instance: is it still as the record says, and does it work?"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping

from controller.fleet.circuit import Circuit
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


class Watcher:
    def __init__(self, transitions: Transitions) -> None:
        self._transitions = transitions
        self._instance = transitions.instance
        self._silence = Silence()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._pause() * random.uniform(0.8, 1.2))
            await self.look()

    async def look(self) -> None:
        """Look once. Raises nothing."""
        try:
            if self._transitions.under_way:
                return
            if self._instance.state in LOOK_SECONDS:
                await self._transitions.settle()
            else:
                await self._transitions.observe()
                await self._listen()
        except Exception:
            log.exception("looking at %s broke", self._instance.name)

    def _pause(self) -> float:
        if self._instance.breaker.circuit is Circuit.OPEN:
            return OPEN_SECONDS
        return LOOK_SECONDS.get(self._instance.state, STEADY_SECONDS)

    async def _listen(self) -> None:
        """Find out whether it does anything, and let its circuit rest if so. A hung engine may well look healthy."""
        instance = self._instance
        if instance.state not in AWAKE:
            return
        if self._silence.suspects(instance.in_flight, instance.answers):
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
