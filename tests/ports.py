"""Ports to listen on that nobody else is given: other tests' clients may still ask for what listened there before."""

from __future__ import annotations

import itertools
import os
import random
import socket

EACH = 2000
"""For each of the processes that share the tests, all below 32768: outgoing connections are given none of those."""

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_numbers = itertools.count(random.SystemRandom().randrange(EACH))


def free_port() -> int:
    """One that nobody listens on, and that was not given before for as long as can be."""
    while True:
        port = 15_000 + _worker * EACH + next(_numbers) % EACH
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
