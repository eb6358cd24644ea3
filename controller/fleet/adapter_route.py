"""The route of an adapter: instances join it when they have confirmed the adapter, and leave before they lose it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

from controller.fleet.instance import Instance
from controller.fleet.members import Members, Roll
from controller.fleet.routes import Replicas, Route


class AdapterRoute(Route):
    """Its requests are counted apart from the instance's others: what is unloaded must only wait for its own.

    An instance that sleeps may be a member: its gate gives it the adapter, or takes it out, before it is ready.
    """

    configured = False

    def __init__(self, name: str, replicas: Replicas) -> None:
        super().__init__(name, replicas, {}, replicas.model)
        self._roll = Roll()
        self.instances = Members(self._roll)
        self.in_flight: Counter[Instance] = Counter()
        self._ended = asyncio.Event()

    @property
    def problem(self) -> str:
        return self._roll.problem

    def put(self, rename: Mapping[Instance, str | None], problem: str = "") -> None:
        """Who has it from now on; whoever waits is told.

        ``problem``: why nobody has it. Empty when somebody is about to: then requests wait.
        """
        self.rename = self._roll.on_it = dict(rename)
        self._roll.problem = problem
        self.replicas.notify()

    def follow(self) -> None:
        """Those that have left the model have lost it."""
        there = self.replicas.instances
        self.put({one: name for one, name in self.rename.items() if one in there}, self.problem)

    def without(self, candidates: Sequence[Instance], gone: Instance) -> Sequence[Instance]:
        return candidates.without(gone) if isinstance(candidates, Members) else super().without(candidates, gone)

    def began(self, instance: Instance) -> None:
        self.in_flight[instance] += 1

    def ended(self, instance: Instance) -> None:
        self.in_flight[instance] -= 1
        if not self.in_flight[instance]:
            del self.in_flight[instance]
            self._ended.set()

    async def drained(self, instance: Instance) -> None:
        """Return when none of its requests is in flight on ``instance``."""
        while self.in_flight[instance]:
            self._ended.clear()
            await self._ended.wait()
