"""The sleep mark of one instance: found again after a restart, and never in the way of what is so already."""

from __future__ import annotations

import logging
from dataclasses import replace

from controller.fleet.instance import Instance
from controller.fleet.origin import Origin
from state.database import StateError
from state.sleep_marks import Phase, SleepMark, SleepMarks

log = logging.getLogger(__name__)


class Marks:
    def __init__(self, instance: Instance, kept: SleepMarks, origin: Origin) -> None:
        self._instance = instance
        self._kept = kept
        self._origin = origin

    async def put(self, mark: SleepMark) -> None:
        """Write it before the engine is told. Raises ``StateError``."""
        await self._kept.put(mark)

    async def confirm(self, mark: SleepMark) -> None:
        """Write a mark that only confirms what is so already: not being able to must not keep an engine asleep."""
        try:
            await self._kept.put(mark)
        except StateError as broken:
            log.error("the sleep mark of %s could not be written: %s", mark.instance, broken)

    async def clear(self) -> None:
        try:
            await self._kept.clear(self._instance.name)
        except StateError as broken:
            log.error("the sleep mark of %s could not be cleared: %s", self._instance.name, broken)

    async def own(self) -> SleepMark | None:
        """The mark of this instance, under the name that it has now."""
        return (await self._kept.all()).get(self._instance.name)

    async def find(self) -> SleepMark | None:
        """The mark of this instance, or of its process under a name that the YAML had before."""
        marks = await self._kept.all()
        if instance_mark := marks.get(self._instance.name):
            return instance_mark
        if not any(mark.process for mark in marks.values()):
            return None  # to find out which process this is takes long where there are many
        process = await self._origin.process()
        older = next((mark for mark in marks.values() if process is not None and mark.process == process), None)
        if older is None:
            return None
        await self._kept.clear(older.instance)
        mark = replace(older, instance=self._instance.name)
        await self.confirm(mark)
        return mark

    def found_asleep(self) -> SleepMark:
        return SleepMark(self._instance.name, Phase.ASLEEP, 0, "found asleep", self._instance.wall(), None)
