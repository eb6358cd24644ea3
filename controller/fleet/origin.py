"""Which process an instance is, and whether the launcher is just bringing it up."""

from __future__ import annotations

import asyncio

from controller.config.model import Instance as InstanceConfig
from runtime.address import is_loopback
from runtime.processes import family, is_running, listener
from state.launches import Launches


class Origin:
    def __init__(self, config: InstanceConfig, launches: Launches) -> None:
        self._config = config
        self._launches = launches
        self._local = not config.spec.remote or is_loopback(config.spec.host)
        self._was_ready: str | None = None
        self._process: str | None = None  # looking through the sockets of a busy machine takes a tenth of a second

    async def process(self) -> str | None:
        """The identity of the process that listens on its port; None on another machine, or when nobody does."""
        if not self._local:
            return None
        if self._process is None or not await asyncio.to_thread(is_running, self._process):
            self._process = await asyncio.to_thread(listener, self._config.spec.port)
        return self._process

    async def pids(self) -> frozenset[int]:
        """Of all processes of the engine; none where it is on another machine."""
        if not self._local:
            return frozenset()
        launch = (await self._launches.all()).get(self._config.name)
        roots = {launch.process if launch is not None else None, await self.process()} - {None}
        return await asyncio.to_thread(family, [root for root in roots if root is not None])

    async def starting(self) -> bool:
        """Whether the process that the launcher started runs, and was never ready: then it is worth waiting for."""
        launch = (await self._launches.all()).get(self._config.name)
        if launch is None or launch.process == self._was_ready:
            return False
        return await asyncio.to_thread(is_running, launch.process)

    async def was_ready(self) -> None:
        """Remember that what the launcher started has come up: should it fail now, it has failed."""
        launch = (await self._launches.all()).get(self._config.name)
        self._was_ready = launch.process if launch is not None else None
