"""Starts sidecars again that have crashed, with the pauses and chances that engines have. Nothing waits for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controller.fleet.errors import FleetError, NotPossible
from controller.fleet.fleet import Fleet
from controller.fleet.journal import Happened
from controller.supervisor.keeper import LaunchKeeper, sidecars_of
from controller.supervisor.policy import Course
from controller.supervisor.rounds import keep_looking
from controller.supervisor.supervisor import RESTART

log = logging.getLogger(__name__)


class Sidecars:
    def __init__(self, fleet: Fleet, keeper: LaunchKeeper) -> None:
        self._fleet = fleet
        self._keeper = keeper
        self._courses: dict[str, Course] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep looking while open."""
        loop = asyncio.create_task(keep_looking(self.look, "the sidecars"))
        try:
            yield
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    async def look(self) -> None:
        """Look once at all of them, and do what is to be done, for one after the other."""
        config = self._fleet.config
        if not config.launch.restart:
            return
        processes, beside = await self._keeper.processes(), sidecars_of(config)
        started = {name: processes[name] for name in beside if name in processes}
        self._courses = {name: self._courses.get(name) or Course() for name in started}
        for name, runs in started.items():
            course = self._courses[name]
            if runs:
                course.see_up(time.monotonic())
            elif course.due is not None and time.monotonic() >= course.due:
                await self._restart(name, beside[name].model, course)
            elif course.due is None and not course.given_up:
                ending = await self._keeper.has_ended(name)
                if ending is not None:
                    problem = f"its process ended ({ending})"
                    self._fleet.journal.tell(Happened.CRASHED, beside[name].model, name, detail=problem)
                    self._fail(name, beside[name].model, course, problem)

    # -- within --------------------------------------------------------------------------------------------------

    async def _restart(self, name: str, model: str, course: Course) -> None:
        course.due = None
        try:
            await self._keeper.start(name)
        except NotPossible as refused:  # it was stopped by hand meanwhile
            log.info("%s", refused)
        except FleetError as problem:
            self._fail(name, model, course, str(problem))
        else:
            self._fleet.journal.tell(Happened.STARTED, model, name, cause=RESTART)

    def _fail(self, name: str, model: str, course: Course, problem: str) -> None:
        log.warning("%s: %s", name, problem)
        problem = course.fail(problem, time.monotonic())
        if course.given_up:
            log.error("%s is given up: %s", name, problem)
            self._fleet.journal.tell(Happened.GIVEN_UP, model, name, detail=problem)
