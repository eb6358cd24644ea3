"""Gives an engine that came up, or was woken, its adapters back before it takes their traffic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from controller.adapters.ground import Ground
from controller.adapters.loading import Loading
from controller.adapters.record import Record
from controller.fleet.instance import Instance
from runtime import adapters
from runtime.engines.base import AdapterSeen, EngineError

log = logging.getLogger(__name__)

GATE_SECONDS = 60.0
"""How long the base model waits for its adapters. What is not back by then comes later."""
ORPHAN_SECONDS = 5.0
"""The same, where it is to have none: it is only asked for those that were forgotten there."""


class AdapterGate:
    def __init__(self, ground: Ground, loading: Loading) -> None:
        self._ground = ground
        self._loading = loading

    async def __call__(self, instance: Instance, woken: bool) -> None:
        """See to it that each adapter is there or out of its route. ``woken``: what it had may be gone."""
        await self._ground.forgive_restarted(instance, came_up=self._ground.roster.falls[instance] > 0)
        records = self._ground.on(instance)
        for record in records:
            record.place(instance.name).path = None
        if not instance.engine.capabilities.adapters:
            return
        try:
            async with asyncio.timeout(GATE_SECONDS if records else ORPHAN_SECONDS):
                await self._restore(instance, records, woken)
        except TimeoutError:
            log.log(_level(records), "%s is let in without all its adapters: they took too long", instance.name)
        except EngineError as error:
            log.log(_level(records), "%s is let in without its adapters: %s", instance.name, error)
        finally:
            for record in self._ground.records.values():
                record.kick()

    async def _restore(self, instance: Instance, records: list[Record], woken: bool) -> None:
        seen = await instance.engine.adapters()
        await self._unload_orphans(instance, seen)
        for record in records:
            wanted, due = record.artifact, record.place(instance.name).tries.due(self._ground.wall())
            if wanted is None or record.deleting or not due:
                continue
            there = seen.get(record.name)
            if not woken and there is not None and there.path == wanted:
                self._loading.loaded(record, instance, wanted)
            else:
                await self._loading.put(record, instance, afresh=woken)

    async def _unload_orphans(self, instance: Instance, seen: Mapping[str, AdapterSeen]) -> None:
        """What we once loaded and nobody wants here any more, such as one that was deleted while it slept.

        What somebody loaded by hand is left alone.
        """
        for name, one in seen.items():
            record = self._ground.records.get(name)
            if record is not None:
                place = record.places.get(instance.name)
                orphan = place is None or not place.chosen
            else:
                left = (instance.name, name) in self._ground.left_behind
                orphan = left or self._ground.artifacts.owns(one.path)
            if orphan:
                await adapters.unload(instance.engine, name)
            self._ground.left_behind.discard((instance.name, name))


def _level(records: list[Record]) -> int:
    return logging.WARNING if records else logging.DEBUG
