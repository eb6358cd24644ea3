"""``python -m router --config example-config.yaml``: the gateway alone, in front of engines that run already."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial

import uvicorn

from controller.config.load import load
from controller.config.mistakes import ConfigError
from controller.config.model import Config
from router.app import create_app
from router.routes.health import torpor_version
from router.server.limits import Limits, spare
from router.server.protocol import DirectProtocol
from router.server.server import GatewayServer
from state.database import StateError, open_database

log = logging.getLogger("router")

RESERVED_FILES = 40
"""For the listener, the database, the log, the event loop and a few more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 after a clean stop, 2 when the YAML has mistakes, 1 when it cannot start."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx2", "httpcore2", "alembic", "aiosqlite"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        config = load(options.config)
    except ConfigError as mistakes:
        sys.stderr.write(f"{mistakes}\n")
        return 2
    files = _raise_file_limit()
    return serve(config, options.host or config.router.router_host, options.port or config.router.router_port, files)


def serve(config: Config, host: str, port: int, files: int | None) -> int:
    """Serve until told to stop, with at most ``files`` open.

    The port is taken first: a second gateway must not touch what the first one knows.
    """
    try:
        listener = listen(host, port)
        asyncio.run(_try_state(config))
    except OSError as taken:
        log.error("cannot listen on %s:%d: %s", host, port, taken.strerror or taken)
        return 1
    except StateError as unusable:
        log.error("%s", unusable)
        return 1
    if not is_loopback(host) and config.api_key is None:
        log.warning("%s", exposure(host, port))
    limits = Limits(connections=most_connections(files, len(config.instances)))
    log.info("%d models at http://%s:%d/v1", len(config.models), host, port)
    app = create_app(config)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until it has started, when what it reads is new anyway
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
            backlog=4096,
            timeout_graceful_shutdown=config.router.stop_timeout_seconds,  # type: ignore[arg-type]  # ours takes fractions
        ),
        {signal.SIGUSR1: app.reload_soon},
    )
    server.run(sockets=[listener])
    return 0 if server.started else 1


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address. Raises ``OSError`` when it is taken, or is not this machine's."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


async def _try_state(config: Config) -> None:
    async with open_database(config.state_url):
        pass


def exposure(host: str, port: int) -> str:
    """What anyone on the network may do."""
    return (
        f"OPEN TO THE NETWORK: {host}:{port} asks for no key. Whoever reaches it may use every model, put models to "
        "sleep and wake them, and read traffic and metrics. Set router.api_key_env, or router_host: 127.0.0.1."
    )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m router", description=__doc__)
    parser.add_argument("--config", "--config_path", required=True, metavar="YAML", help="the one configuration file")
    parser.add_argument("--host", help="address to listen on (router.router_host, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (router.router_port, 8080)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--version", action="version", version=torpor_version())
    return parser


if __name__ == "__main__":
    sys.exit(main())
