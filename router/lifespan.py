"""What lives as long as the gateway does: the fleet, its connections, the sleep loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace

from controller.config.model import Config
from controller.config.model import Instance as InstanceConfig
from controller.fleet.adapter_route import AdapterRoute
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.journal import Journal
from controller.residency import seniority
from controller.service import Company, open_fleet
from router.auth.guard import Key
from router.engine_metrics import EngineMetrics
from router.farewell import Farewells
from router.outlook import Outlooks
from router.proxy.buffered import Buffered
from router.proxy.pool import Pool, keep_sweeping
from router.proxy.queue import Queue
from router.proxy.responses import Makers
from router.proxy.serving import Serving, serving
from router.sleep.manager import SleepManager
from router.successor import successor
from router.traffic.monitor import TrafficMonitor

MEGABYTE = 1_000_000


class Live:
    """The live objects that the routes work with. ``config``: the one in force.

    The tables stay the same objects when another configuration is applied, and so does all that is in use.
    """

    def __init__(self, config: Config, company: Company, key: Key) -> None:
        self.config = config
        fleet = company.fleet
        self.fleet = fleet
        self.adapters = company.adapters
        self.arbiter = company.arbiter
        self.chronicle = company.chronicle
        self.supervisor = company.supervisor
        self.stopping = asyncio.Event()
        self.traffic = TrafficMonitor(config.models, lambda model: _ready_since(fleet, model), fleet.clock, fleet.wall)
        self.makers = Makers()
        self.engine_metrics = EngineMetrics(fleet)
        self.sleep = SleepManager(fleet, self.traffic)
        self.serving: dict[str, Serving] = {}
        self.queues: dict[str, Queue] = {}
        self.outlooks = Outlooks(fleet, self.arbiter, self.queues)
        self.pools: dict[Instance, Pool] = {}
        self.farewells = Farewells(self.pools)
        self.buffered = Buffered(0, 0)
        self.key = key
        self.left = False
        self._sleeping: asyncio.Task[None] | None = None
        self._settle(config)

    def apply(self, config: Config, renewed: Collection[str] = ()) -> None:
        """From now on it is as in ``config``: nothing is awaited, and no request is lost.

        ``renewed``: instances whose engine is another, though its address may be the same. Those of a model that is
        gone stay, and no name leads there, until it has served what it was asked.
        """
        staying = self._still_asked(config)
        self.config, whole = config, replace(config, instances=(*config.instances, *staying))
        left = self.fleet.apply(whole, renewed, {one.model for one in staying})
        self.traffic.watch(whole.models)
        self._settle(whole)
        for one in staying:
            self.farewells.outlast(one.name, self.traffic.models[one.model], lambda: self.apply(self.config))
        for gone in left:
            self.farewells.begin(gone)
        if not self.left:
            self.put_idle_to_sleep()

    async def leave(self, url: str) -> None:
        """Another gateway takes over at ``url``: to it goes whatever has not been sent to an engine yet.

        Nothing is decided here any more; what is in flight is finished. What was being done to engines is broken off,
        and its marks are as they should be, when this returns: the next gateway goes by them.
        """
        self.left = True
        seniority.tell(self.fleet.journal, self.arbiter.waiting, self.fleet.clock())
        transitions = list(self.fleet.transitions.values())
        routes = list(self.fleet.routes.values())
        names = {model: [one.name for one in routes if one.model == model] for model in self.fleet.models}
        self.adapters.rest()
        self.apply(successor(self.config, names, url))
        if self._sleeping is not None:
            self._sleeping.cancel()
        for instance in self.fleet.instances.values():
            instance.journal = Journal()  # what happened to the fleet is told by the next gateway
            if instance.config.model in self.config.models:
                instance.enter_ready()
        for route in routes:
            if isinstance(route, AdapterRoute):
                route.put(dict.fromkeys(route.replicas.instances))
        await asyncio.gather(*(one.aclose() for one in transitions))

    def put_idle_to_sleep(self) -> None:
        """From now on, as the configuration in force says."""
        if self._sleeping is not None:
            self._sleeping.cancel()
        self._sleeping = asyncio.create_task(self.sleep.run())

    async def aclose(self) -> None:
        """What still runs for clients is closed."""
        if self._sleeping is not None:
            self._sleeping.cancel()
            await asyncio.gather(self._sleeping, return_exceptions=True)
        await self.farewells.aclose()
        await self.engine_metrics.close()
        for pool in self.pools.values():
            pool.close()

    def _still_asked(self, config: Config) -> list[InstanceConfig]:
        """Instances of models that ``config`` has no more, and that have requests."""
        named = {one.name for one in config.instances}
        return [
            instance.config
            for name, instance in self.fleet.instances.items()
            if name not in named and (model := instance.config.model) not in config.models
            if self.traffic.models[model].in_flight
        ]

    def _settle(self, whole: Config) -> None:
        """All that is not the fleet's, once the fleet is as it should be. ``whole``: with what still leaves."""
        router = whole.router
        self.key.become(whole.api_key)
        self.buffered.limit = int(router.max_buffered_mb * MEGABYTE)
        self.buffered.largest = int(router.max_body_mb * MEGABYTE)
        served = serving(whole, self.traffic, self.serving)
        self.serving.clear()
        self.serving.update(served)
        self.queues.clear()
        self.queues.update({model: one.queue for model, one in served.items() if one.queue is not None})
        for instance in self.fleet.instances.values():
            config = instance.config
            pool = self.pools.setdefault(instance, Pool(config.spec.base_url, config.timeouts))
            pool.timeouts = config.timeouts


@asynccontextmanager
async def open_gateway(config: Config, key: Key, has_predecessor: bool) -> AsyncIterator[Live]:
    """Every instance has been looked at when this opens. At the end, what still runs for clients is closed.

    ``has_predecessor``: another gateway has requests in flight on engines.
    """
    async with open_fleet(config, has_predecessor=has_predecessor) as company:
        gateway = Live(config, company, key)
        gateway.put_idle_to_sleep()
        sweeping = asyncio.create_task(keep_sweeping(gateway.pools.values()))
        try:
            yield gateway
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
            await gateway.aclose()


def _ready_since(fleet: Fleet, model: str) -> float:
    return max(instance.ready_since for instance in fleet.models[model].instances)
