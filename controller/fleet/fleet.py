"""All instances, what is known of each, and the names that lead to them: the live truth of the gateway."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from controller.config.model import Config
from controller.fleet.instance import Instance
from controller.fleet.origin import Origin
from controller.fleet.routes import Replicas, Route, routes_of
from controller.fleet.state import State
from controller.fleet.transitions import Transitions
from runtime.engines.base import Engine
from state.launches import Launches
from state.sleep_marks import SleepMarks

log = logging.getLogger(__name__)

LOOK_SECONDS: Mapping[State, float] = {State.UNKNOWN: 0.5, State.STARTING: 0.5, State.FAILED: 2.0}
"""How often an instance in such a state is looked at; in any other every five seconds."""

STEADY_SECONDS = 5.0


class Fleet:
    """``models`` and ``instances`` by their names in the YAML, ``routes`` by every name a client may use."""

    def __init__(self, config: Config, engines: Mapping[str, Engine], marks: SleepMarks, launches: Launches) -> None:
        self.transitions: dict[str, Transitions] = {}
        for one in config.instances:
            instance = Instance(one, engines[one.name])
            self.transitions[one.name] = Transitions(instance, marks, Origin(one, launches))
        self.instances: Mapping[str, Instance] = {name: one.instance for name, one in self.transitions.items()}
        self.models: Mapping[str, Replicas] = {
            model: Replicas(model, [self.transitions[one.name] for one in config.instances_of(model)])
            for model in config.models
        }
        self.routes: dict[str, Route] = {}
        for replicas in self.models.values():
            self.routes.update(routes_of(replicas))

    def find(self, name: str) -> tuple[str, tuple[Instance, ...]] | None:
        """The instances that ``name`` means: of a model, by any of its names, or one instance."""
        if route := self.routes.get(name):
            return route.model, route.replicas.instances
        if instance := self.instances.get(name):
            return instance.config.model, (instance,)
        return None

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Keep looking at every instance while open. The first look is over when this opens."""
        watchers: list[asyncio.Task[None]] = []
        try:
            await asyncio.gather(*(self._look(one) for one in self.transitions.values()))
            watchers += [asyncio.create_task(self._watch(one)) for one in self.transitions.values()]
            yield
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)
            await asyncio.gather(*(one.aclose() for one in self.transitions.values()))

    async def _watch(self, transitions: Transitions) -> None:
        while True:
            pause = LOOK_SECONDS.get(transitions.instance.state, STEADY_SECONDS)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            await self._look(transitions)

    async def _look(self, transitions: Transitions) -> None:
        try:
            if transitions.under_way:
                return
            if transitions.instance.state in LOOK_SECONDS:
                await transitions.settle()
            else:
                await transitions.observe()
        except Exception:
            log.exception("looking at %s broke", transitions.instance.name)
