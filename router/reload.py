"""The YAML, read again while the gateway runs: what it would change, and changing it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from controller.config.load import load
from controller.config.mistakes import ConfigError
from controller.config.model import Config
from controller.reload.differences import Differences, compare, in_force
from router.errors import Conflict, GatewayError, NotFound, Unprocessable, stopping
from router.lifespan import Live

log = logging.getLogger(__name__)

STOPPING_SECONDS = 60.0
"""For which an engine that was drained is waited for, beyond the time it may take to end."""


class Reload:
    """One at a time. ``read`` gives a configuration from its file; it blocks."""

    def __init__(self, live: Live, read: Callable[[Path], Config] = load) -> None:
        self._live = live
        self._read = read
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def plan(self) -> Differences:
        """What applying the YAML as it is now would change. Raises ``Unprocessable`` with all its mistakes."""
        wanted = await self._wanted()
        return await asyncio.to_thread(compare, self._live.config, wanted)

    async def apply(self) -> tuple[Differences, Differences]:
        """Apply it: what was found, and what of that is left to do. Raises ``Unprocessable``: nothing is changed."""
        async with self._lock:
            before, wanted = self._live.config, await self._wanted()
            found = await asyncio.to_thread(compare, before, wanted)
            self._put_in_force(await asyncio.to_thread(in_force, before, wanted))
            await self._live.adapters.declare(wanted.adapters)
            left = await asyncio.to_thread(compare, self._live.config, wanted)
            log.info("%s applied: %s", wanted.file, "; ".join(found.lines()) or "nothing has changed")
            for line in left.lines():
                log.warning("not applied yet: %s", line)
            return found, left

    def apply_soon(self) -> None:
        """Without waiting; the log tells how it went."""
        task = asyncio.create_task(self._apply_and_tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, name: str, seconds: float) -> None:
        """Take an instance out of service, for it is about to be stopped or started anew, and wait until it is empty.

        Its replicas take its requests, or they wait; once it was ``admit``ted it is what the YAML says now. Raises
        ``Conflict`` when it was not empty after so many ``seconds``: then it serves on.
        """
        self._check()
        async with self._lock:
            before = self._live.config
            known = any(one.name == name for one in before.instances)
            if known:
                wanted = await self._wanted()
                self._put_in_force(_with_one_of(before, wanted, name), name)
                stopping = wanted.launch.stop_timeout_seconds + STOPPING_SECONDS
                self._live.fleet.hold(name, seconds + stopping)
            if await self._live.farewells.ended(name, seconds):
                await self._live.fleet.look_at_stopped()  # whether there is room for it is asked next
                log.info("%s was taken out of service", name)
                return
            if known:
                self._put_in_force(before, name)
            raise Conflict(f"{name!r} was still busy after {seconds:g} s.", "still_busy")

    async def admit(self, name: str) -> None:
        """Look at an instance that was taken out of service, now and from now on. Raises ``NotFound``."""
        self._check()
        if name not in self._live.fleet.instances:
            raise NotFound(f"There is no instance {name[:200]!r}.", "instance_not_found")
        self._live.fleet.release(name)
        await self._live.fleet.transitions[name].settle()

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _wanted(self) -> Config:
        self._check()
        try:
            return await asyncio.to_thread(self._read, self._live.config.file)
        except ConfigError as mistakes:
            raise Unprocessable(f"Nothing was changed. {mistakes}", "invalid_configuration") from mistakes

    def _put_in_force(self, config: Config, *renewed: str) -> None:
        """Another gateway may have taken over while it was read."""
        self._check()
        self._live.apply(config, renewed)

    def _check(self) -> None:
        """Raises ``Unavailable`` when another gateway has taken over, and nothing is to be changed here any more."""
        if self._live.left:
            raise stopping()

    async def _apply_and_tell(self) -> None:
        try:
            await self.apply()
        except GatewayError as refused:
            log.error("%s", refused)
        except Exception:
            log.exception("reading the YAML again broke")


def _with_one_of(running: Config, wanted: Config, name: str) -> Config:
    """``running``, but for one instance."""
    new = {instance.name: instance for instance in wanted.instances}
    instances = tuple(new.get(name, one) if one.name == name else one for one in running.instances)
    return replace(running, instances=instances)
