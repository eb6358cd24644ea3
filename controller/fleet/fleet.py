"""All instances, what is known of each, and the names that lead to them: the live truth of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from controller.config.model import Config
from controller.fleet.finding import Gate
from controller.fleet.instance import Instance
from controller.fleet.journal import Journal
from controller.fleet.origin import Origin
from controller.fleet.routes import Replicas, Route, routes_of
from controller.fleet.transitions import Transitions
from controller.fleet.waker import AtOnce, Waker
from controller.fleet.watcher import Watcher
from runtime.engines.base import Engine
from state.launches import Launches
from state.sleep_marks import SleepMarks


class Fleet:
    """``models`` and ``instances`` by their names in the YAML, ``routes`` by every name a client may use."""

    def __init__(self, config: Config, engines: Mapping[str, Engine], marks: SleepMarks, launches: Launches) -> None:
        self.journal = Journal()
        self.transitions: dict[str, Transitions] = {}
        for one in config.instances:
            instance = Instance(one, engines[one.name])
            instance.journal = self.journal
            self.transitions[one.name] = Transitions(instance, marks, Origin(one, launches))
        self.waker: Waker = AtOnce(self.transitions)
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

    def put_in_charge(self, waker: Waker) -> None:
        """From now on ``waker`` has models woken."""
        self.waker = waker
        for replicas in self.models.values():
            replicas.waker = waker

    def guard(self, gate: Gate) -> None:
        """From now on every instance passes ``gate`` before it is ready."""
        for one in self.transitions.values():
            one.gate = gate

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Keep looking at every instance while open. The first look is over when this opens."""
        watchers = [Watcher(one, self.instances.values()) for one in self.transitions.values()]
        tasks: list[asyncio.Task[None]] = []
        try:
            await asyncio.gather(*(one.look() for one in watchers))
            tasks += [asyncio.create_task(one.run()) for one in watchers]
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(one.aclose() for one in self.transitions.values()))
