"""``python -m router --config example-config.yaml``: the gateway alone, in front of engines that run already."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence

from router.succession import keep
from router.version import torpor_version
from runtime import logs
from runtime.address import port_number


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 after a clean stop, 2 when the YAML has mistakes, 1 when it cannot start."""
    words = sys.argv[1:] if argv is None else list(argv)
    options = parser().parse_args(words)
    if options.inherit is None:
        logs.begin(options.log_level)
        return keep(words)
    gc.disable()  # until it serves: what is loaded now stays
    from router.gateway import work  # all that a gateway needs is loaded in its own process only

    return work(options)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m router", description=__doc__)
    found.add_argument("--config", "--config_path", required=True, metavar="YAML", help="the one configuration file")
    found.add_argument("--host", help="address to listen on (router.router_host, 127.0.0.1)")
    found.add_argument("--port", type=port_number, help="port to listen on (router.router_port, 8080)")
    found.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    found.add_argument("--version", action="version", version=torpor_version())
    found.add_argument("--inherit", help=argparse.SUPPRESS)
    return found


if __name__ == "__main__":
    sys.exit(main())
