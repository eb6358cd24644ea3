"""Asks engines what they have: their own word is the truth, and what an engine has lost is loaded again."""

from __future__ import annotations

import asyncio
import logging

from controller.adapters.ground import Ground
from controller.adapters.record import WARNING, Place
from controller.fleet.instance import Instance
from controller.fleet.state import State
from runtime.engines.base import EngineError

log = logging.getLogger(__name__)

CENSUS_SECONDS = 5.0


class Census:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def run(self) -> None:
        """Ask each instance that is awake, again and again, until cancelled."""
        while True:
            await asyncio.sleep(CENSUS_SECONDS)
            instances = self._ground.fleet.instances.values()
            await asyncio.gather(*(self.look(one) for one in instances if one.state is State.READY))

    async def look(self, instance: Instance) -> None:
        """Ask one. Raises nothing."""
        try:
            await self._look(instance)
        except EngineError as error:
            log.info("%s does not tell its adapters: %s", instance.name, error)
        except Exception:
            log.exception("looking at the adapters of %s broke", instance.name)

    async def _look(self, instance: Instance) -> None:
        await self._ground.forgive_restarted(instance, came_up=False)
        before = {
            record.name: (record, place, place.path)
            for record in self._ground.records.values()
            if (place := record.places.get(instance.name)) and _is_settled(place)
        }
        if not before:
            return
        seen = await instance.engine.adapters()
        for name, (record, place, path) in before.items():
            if place.path != path or not _is_settled(place) or instance.state is not State.READY:
                continue  # it was changed while we asked
            if name not in seen or seen[name].path != path:
                record.tell(WARNING, "AdapterLost", f"pod {instance.name} does not have it any more")
                place.path = None
                self._ground.reroute(record)
                record.kick()


def _is_settled(place: Place) -> bool:
    return place.path is not None and not place.leaving and not place.lock.locked()
