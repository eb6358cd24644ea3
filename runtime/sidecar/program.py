"""The sidecar as a program: its command line, its port, its stop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import uvicorn

from runtime import logs, settings
from runtime.address import is_loopback, listen
from runtime.sidecar.app import create_app
from runtime.sidecar.options import Mistake, Options, parse

log = logging.getLogger("runtime")

GRACE_SECONDS = 10


def main(argv: Sequence[str]) -> int:
    """Exit code 0 after a clean stop, 2 for mistakes in the call, 1 when the port cannot be had."""
    environ = settings.environment()
    try:
        options = parse(argv, environ)
    except Mistake as mistake:
        sys.stderr.write(f"python -m runtime: {mistake}\n")
        return 2
    logs.begin(options.log_level)
    return serve(options, settings.read(environ))


def serve(options: Options, keys: settings.Settings) -> int:
    try:
        listener = listen(options.host, options.port)
    except OSError as taken:
        log.error("cannot listen on %s:%d: %s", options.host, options.port, taken.strerror or taken)
        return 1
    if not is_loopback(options.host):
        log.warning("%s", exposure(options))
    log.info("beside %s (%s) at http://%s:%d", options.engine.base_url, options.engine.kind, options.host, options.port)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(options, keys),
            ws="none",
            lifespan="on",
            proxy_headers=False,
            access_log=options.access_log,
            server_header=False,
            log_config=None,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    server.run(sockets=[listener])
    return 0 if server.started else 1


def exposure(options: Options) -> str:
    """What anyone on the network may do."""
    return (
        f"OPEN TO THE NETWORK: {options.host}:{options.port}{_every(options.host)} asks for no key. "
        "Whoever reaches it may load and unload adapters, download into the allowed folders and read metrics. Outside "
        "of a pod, use --host 127.0.0.1."
    )


def _every(host: str) -> str:
    return " is every address of this machine and" if host in ("", "0.0.0.0", "::") else ""
