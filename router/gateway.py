"""One gateway: reads the YAML, takes the address, serves until it is told to stop, or to leave it to the next one."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import resource
import signal
import socket
import sys
from contextlib import closing
from functools import partial

import uvicorn

from controller.config.load import load
from controller.config.mistakes import ConfigError
from controller.config.model import Config
from controller.config.resolve import ANY_ADDRESS
from router.app import create_app
from router.server.channel import Channel
from router.server.limits import Limits, spare
from router.server.protocol import DirectProtocol
from router.server.server import GatewayServer
from runtime import logs
from runtime.address import is_loopback, listen
from state.database import StateError, open_database

log = logging.getLogger("router")

BACKLOG = 4096
LEAVING_SECONDS = 600.0
"""For which a gateway finishes what it has, once another has taken over."""

RESERVED_FILES = 40
"""For the listener, the database, the log, the event loop and a few more."""


def work(options: argparse.Namespace) -> int:
    """Exit code 0 after a clean stop, 2 when the YAML has mistakes, 1 when it cannot start."""
    logs.begin(options.log_level)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # until it has started, when what it reads is new anyway
    with closing(Channel(options.inherit)) as channel:
        return _begin(options, channel)


def _begin(options: argparse.Namespace, channel: Channel) -> int:
    try:
        config = load(options.config)
    except ConfigError as mistakes:
        sys.stderr.write(f"{mistakes}\n")
        return 2
    files = _raise_file_limit()
    host, port = options.host or config.router.router_host, options.port or config.router.router_port
    try:
        listener = channel.listener if is_bound_to(channel.listener, host, port) else listen(host, port)
        asyncio.run(_try_state(config))
    except OSError as taken:
        log.error("cannot listen on %s:%d: %s", host, port, taken.strerror or taken)
        return 1
    except StateError as unusable:
        log.error("%s", unusable)
        return 1
    assert listener is not None
    return serve(config, host, listener, channel, files)


def serve(config: Config, host: str, listener: socket.socket, channel: Channel, files: int | None) -> int:
    """Serve once it is this gateway's turn, with at most ``files`` open."""
    port = listener.getsockname()[1]
    if not is_loopback(host) and config.api_key is None:
        log.warning("%s", exposure(host, port))
    limits = Limits(connections=most_connections(files, len(config.instances)))
    alone = channel.wait_for_turn(listener)
    log.info("%d models at http://%s:%d/v1", len(config.models), host, port)
    app = create_app(config, has_predecessor=not alone)
    server = GatewayServer(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=partial(DirectProtocol, limits=limits),  # type: ignore[arg-type]  # it is only called
            ws="none",
            proxy_headers=False,
            lifespan="on",
            access_log=False,
            server_header=False,
            date_header=False,
            log_config=None,
            backlog=BACKLOG,
            timeout_graceful_shutdown=config.router.stop_timeout_seconds,  # type: ignore[arg-type]  # ours takes fractions
        ),
        {signal.SIGUSR1: app.reload_soon, signal.SIGUSR2: lambda: channel.say("renew")},
    )

    async def leave() -> None:
        server.leave()
        await app.leave(url_of(host, port))
        channel.say("left")
        log.info("the next gateway takes over; what is in flight is finished")
        emptied = asyncio.create_task(say_when_empty())
        await server.end(LEAVING_SECONDS)
        emptied.cancel()

    async def say_when_empty() -> None:
        await app.emptied()
        channel.say("empty")

    def begin() -> None:
        channel.listen({"leave": lambda: server.begin(leave()), "alone": app.is_alone})
        _spare_collector()

    server.on_start = begin
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _spare_collector() -> None:
    """What is there by now stays: to look through all of it again and again would hold up everybody's tokens."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(10_000, 20, 50)


def is_bound_to(listener: socket.socket | None, host: str, port: int) -> bool:
    """Whether that is its address already."""
    if listener is None:
        return False
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return (listener.family, listener.getsockname()[:2]) == (family, address[:2])


def url_of(host: str, port: int) -> str:
    """Where it is reached from this machine."""
    host = ANY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _try_state(config: Config) -> None:
    async with open_database(config.state_url):
        pass


def exposure(host: str, port: int) -> str:
    """What anyone on the network may do."""
    return (
        f"OPEN TO THE NETWORK: {host}:{port} asks for no key. Whoever reaches it may use every model, put models to "
        "sleep and wake them, and read traffic and metrics. Set router.api_key_env, or router_host: 127.0.0.1."
    )


def most_connections(files: int | None, engines: int) -> int | None:
    """How many clients fit into so many open files. Each needs two, and a few more are told that they do not fit."""
    if files is None:
        return None
    free = files - RESERVED_FILES - engines  # one to each engine is kept for looking at it
    return max(1, (free - spare(free // 2)) // 2)


def _raise_file_limit() -> int | None:
    """How many files may be open; None without a limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None if hard == resource.RLIM_INFINITY else hard
