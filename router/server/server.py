"""uvicorn's server, that looks after its connections and knows how to stop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping, Set
from time import monotonic
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import uvicorn

from router.proxy.door import nothing

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
AT_A_TIME = 500
"""Connections that are looked at before anybody else gets a turn."""

LAST_WORDS_SECONDS = 1.0
"""How long clients have, at the very end, to take what is still written to them."""


class GatewayServer(uvicorn.Server):
    """A first SIGTERM or SIGINT lets running requests finish, for ``timeout_graceful_shutdown``; a second one does not.

    What still runs then is told: a stream by an error event, anything else by a 503. Ends without raising the signal
    again: to be stopped is no failure. ``on_signal``: what to do at other signals, once it has started.
    """

    def __init__(self, config: uvicorn.Config, on_signal: Mapping[int, Callable[[], None]] | None = None) -> None:
        super().__init__(config)
        self._on_signal = on_signal or {}
        self.on_start: Callable[[], None] = nothing
        self._works: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for number, act in self._on_signal.items():
            asyncio.get_running_loop().add_signal_handler(number, act)
        application = self.config.loaded_app
        if hasattr(application, "clients"):
            application.clients = self.server_state.connections
        self._patrol = asyncio.create_task(patrol(self.server_state.connections))
        self.on_start()

    def leave(self) -> None:
        """Take no more connections; those there are end with their next answer, or when nothing comes any more."""
        for listener in self.servers:
            listener.close()
        for connection in self.server_state.connections:
            connection.leaving = True  # type: ignore[union-attr]  # they are ours
        self._tell_application()

    async def end(self, seconds: float) -> None:
        """Stop when all connections have ended, or after so many ``seconds``."""
        await self._quiet(seconds)
        self.should_exit = True

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it as long as the server runs."""
        task = asyncio.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = self.server_state
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(state.connections):
            connection.shutdown()
        self._tell_application()
        await self._quiet(self.config.timeout_graceful_shutdown)
        if state.connections:
            log.warning("%d connections are cut off", len(state.connections))
        tasks = list(state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS_SECONDS)
        await self.lifespan.shutdown()  # closes the connections to engines, which tells the rest
        self.force_exit = False
        await self._quiet(LAST_WORDS_SECONDS)
        self._patrol.cancel()
        for connection in list(state.connections):
            connection.transport.abort()

    def _tell_application(self) -> None:
        """Answers that would never end by themselves do so now."""
        stopping = getattr(self.config.loaded_app, "stopping", None)
        if stopping is not None:
            stopping()

    async def _quiet(self, seconds: float | None) -> None:
        """Wait until nothing runs any more."""
        state, loop = self.server_state, asyncio.get_running_loop()
        deadline = loop.time() + (seconds or 0)
        while (state.connections or state.tasks) and not self.force_exit and loop.time() < deadline:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.02)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


@runtime_checkable
class Patient(Protocol):
    """A connection with limits; uvicorn's own have none."""

    def look(self, now: float) -> None: ...


async def patrol(connections: Set[Any]) -> None:
    """Look at every connection, again and again. Runs until cancelled."""
    held_up = 0.0
    while True:
        began = monotonic()
        await asyncio.sleep(LOOK_SECONDS)
        held_up += max(0.0, monotonic() - began - LOOK_SECONDS)
        await _look_at(connections, held_up)  # by itself: a name here would keep the last of them while this sleeps


async def _look_at(connections: Set[Any], held_up: float) -> None:
    """``held_up``: for so long this process did not run when it should have, and read nothing."""
    for number, connection in enumerate(list(connections), 1):
        if not isinstance(connection, Patient) or connection not in connections:
            continue
        try:
            connection.look(monotonic() - held_up)
        except Exception:
            log.exception("looking at a connection broke")
        if number % AT_A_TIME == 0:
            await asyncio.sleep(0)
