"""Serving the simulated engine: as a program, or inside another event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass
from types import FrameType

import uvicorn

from runtime.engines.sim.app import create_app
from runtime.engines.sim.engine import Engine
from runtime.engines.sim.options import SimOptions
from runtime.engines.sim.wire import protocol_class

logger = logging.getLogger(__name__)

_BACKLOG = 4096
_KEEP_ALIVE_SECONDS = 5  # as the real engines


def listen(host: str, port: int) -> socket.socket:
    """A listening socket of our own; OSError when somebody else has the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, for asyncio turns Nagle off only on what it can see is TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _config(engine: Engine) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(engine.options, engine),
        http=protocol_class(engine.connections),
        loop="uvloop",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )


class _Program(uvicorn.Server):
    """Ends what runs with an error when told to stop, as the real engines do by default."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(_config(engine))
        self._engine = engine
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._engine.shut_down)


class _Guest(uvicorn.Server):
    """Leaves the signals of the process alone, and ends at once."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(_config(engine))
        self._engine = engine
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    async def main_loop(self) -> None:
        while not self._stop.is_set():
            await self.on_tick(0)  # sets the date header
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._engine.shut_down()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            await asyncio.wait(list(self.server_state.tasks), timeout=0.2)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        for task in self.server_state.tasks:
            task.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def run(options: SimOptions, sleep: Callable[[float], None] = time.sleep) -> int:
    """Serve until told to stop; 1 when the port is taken."""
    if options.start_seconds > 0:
        logger.info("loading %s for %g seconds", options.model, options.start_seconds)
        sleep(options.start_seconds)
    try:
        listener = listen(options.host, options.port)
    except OSError as error:
        logger.error("cannot listen on %s:%d: %s", options.host, options.port, error.strerror)
        return 1
    host, port = listener.getsockname()[:2]
    logger.info("simulated %s engine of %s on %s:%d", options.dialect, options.name, host, port)
    _Program(Engine(options)).run(sockets=[listener])
    return 0


@dataclass(frozen=True)
class Served:
    url: str
    port: int
    engine: Engine


@contextlib.asynccontextmanager
async def serving(options: SimOptions, exit_process: Callable[[int], object] | None = None) -> AsyncIterator[Served]:
    """The engine inside the running loop, on a free port unless one is given (0 means free).

    Connections may be made as soon as this yields. Without `exit_process`, a death ends the whole process.
    """
    engine = Engine(options) if exit_process is None else Engine(options, exit_process)
    listener = listen(options.host, options.port)
    port = listener.getsockname()[1]
    server = _Guest(engine)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield Served(f"http://{options.host}:{port}", port, engine)
    finally:
        server.stop()
        await task
