"""What lives as long as the gateway does: the fleet, its connections, the sleep loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from controller.adapters.controller import AdapterController
from controller.config.model import Config
from controller.fleet.fleet import Fleet
from controller.service import open_fleet
from router.engine_metrics import EngineMetrics
from router.proxy.pool import Pool, keep_sweeping
from router.proxy.responses import Makers
from router.proxy.serving import serving
from router.sleep.manager import SleepManager
from router.traffic.monitor import TrafficMonitor


class Live:
    """The live objects that the routes work with."""

    def __init__(self, config: Config, fleet: Fleet, adapters: AdapterController) -> None:
        self.fleet = fleet
        self.adapters = adapters
        self.traffic = TrafficMonitor(config.models, lambda model: _ready_since(fleet, model))
        self.makers = Makers()
        self.engine_metrics = EngineMetrics(fleet)
        self.sleep = SleepManager(fleet, self.traffic)
        self.serving = serving(config, self.traffic)
        self.queues = {model: one.queue for model, one in self.serving.items() if one.queue is not None}
        self.pools: Mapping[str, Pool] = {
            name: Pool(instance.config.spec.base_url, instance.config.timeouts)
            for name, instance in fleet.instances.items()
        }


@asynccontextmanager
async def open_gateway(config: Config) -> AsyncIterator[Live]:
    """Every instance has been looked at when this opens. At the end, what still runs for clients is closed."""
    async with open_fleet(config) as (fleet, adapters):
        gateway = Live(config, fleet, adapters)
        loops = [
            asyncio.create_task(gateway.sleep.run()),
            asyncio.create_task(keep_sweeping(gateway.pools.values())),
        ]
        try:
            yield gateway
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await gateway.engine_metrics.close()
            for pool in gateway.pools.values():
                pool.close()


def _ready_since(fleet: Fleet, model: str) -> float:
    return max(instance.ready_since for instance in fleet.models[model].instances)
