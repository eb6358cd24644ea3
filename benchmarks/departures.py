"""What ``leaving`` does: clients leave in the middle of their requests, and engines note when they are left.

Clients and engine are in one process, so that both times are of one clock; the gateway is ``python -m router``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import uvloop

from benchmarks.fake_engine import STREAM_HEAD, TOKEN, Engine
from benchmarks.flood import request
from benchmarks.gateways import KINDS, CannotStart, start, stop
from benchmarks.measure import Distribution

MODEL = "bench"
TARGET_SECONDS = 0.2
PATIENCE = 30.0
NUMBER = re.compile(rb'"leaver": *(\d+)')
PART = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"

CASES = {
    "stream, before the first byte": (True, b""),
    "stream, after it": (True, STREAM_HEAD + TOKEN),
    "not streamed, before the first byte": (False, b""),
    "not streamed, in the middle": (False, PART),
}
"""Whether it is a stream, and what the engine has said of the answer when the client leaves."""


class Leavers:
    """The leavers of one case. ``came`` and ``left``: at the engine, by number."""

    def __init__(self, number: int, said: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.said = said
        self.came: list[asyncio.Future[None]] = [loop.create_future() for _ in range(number)]
        self.left: list[asyncio.Future[float]] = [loop.create_future() for _ in range(number)]


class Left(Engine):
    """Says what the case wants, and nothing more."""

    leavers: Leavers | None = None
    """Of the case in progress, for all connections."""
    _number: int | None = None

    def _answer(self, asked: bytes) -> None:
        number = NUMBER.search(asked)
        if number is None or Left.leavers is None:
            super()._answer(asked)
            return
        self._number = int(number[1])
        self._transport.write(Left.leavers.said)
        Left.leavers.came[self._number].set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._number is not None and Left.leavers is not None:
            Left.leavers.left[self._number].set_result(time.perf_counter())


class Client(asyncio.Protocol):
    """``heard``: the first bytes have come."""

    def __init__(self) -> None:
        self.heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        if not self.heard.done():
            self.heard.set_result(None)


async def leave(port: int, number: int, stream: bool, leavers: Leavers) -> float:
    """Seconds from a client's leaving until its engine knows."""
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(Client, "127.0.0.1", port)
    transport.write(request(MODEL, stream=stream, leaver=number))
    async with asyncio.timeout(PATIENCE):
        await leavers.came[number]
        if leavers.said:
            await client.heard
        else:
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        transport.close()
        return await leavers.left[number] - began


async def measure(port: int, number: int, at_once: int) -> dict[str, Distribution]:
    """Every case, ``number`` times, with so many clients at once."""
    found = {}
    for case, (stream, said) in CASES.items():
        leavers = Left.leavers = Leavers(number, said)
        taken = Distribution()
        for first in range(0, number, at_once):
            some = range(first, min(first + at_once, number))
            for seconds in await asyncio.gather(*(leave(port, one, stream, leavers) for one in some)):
                taken.add(seconds)
        found[case] = taken
    return found


async def run(number: int, at_once: int) -> dict[str, Distribution]:
    """Raises ``CannotStart``."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Left(loop, 0.01), "127.0.0.1", 0, backlog=4096)
    engine = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        gateway = await asyncio.to_thread(start, KINDS["torpor"], Path(folder) / "torpor", {MODEL: [engine]}, None)
        try:
            return await measure(gateway.port, number, at_once)
        finally:
            await asyncio.to_thread(stop, gateway.process)
            server.close()


def table(found: dict[str, Distribution]) -> str:
    lines = [f"{'the client leaves':<38}{'p50 ms':>8}{'p99 ms':>8}{'most ms':>9}"]
    for case, taken in found.items():
        p50, p99, most = (taken.percentile(share) or 0.0 for share in (0.5, 0.99, 1.0))
        lines.append(f"{case:<38}{p50 * 1e3:>8.2f}{p99 * 1e3:>8.2f}{most * 1e3:>9.2f}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/leaving.py", description=__doc__)
    parser.add_argument("--number", type=int, default=1000, metavar="N", help="clients of each case (1000)")
    parser.add_argument("--at-once", type=int, default=16, metavar="N", help="so many at a time (16)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    parser.add_argument("--check", action="store_true", help="exit with 1 when p99 is over the target")
    options = parser.parse_args(argv)
    try:
        found = uvloop.run(run(options.number, options.at_once))
    except CannotStart as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    print(table(found))
    if options.json is not None:
        options.json.write_text(json.dumps({case: _figures(taken) for case, taken in found.items()}, indent=2))
    late = any((taken.percentile(0.99) or 0.0) > TARGET_SECONDS for taken in found.values())
    print(f"p99 at most {TARGET_SECONDS * 1e3:g} ms: {'MISSED' if late else 'met'}")
    return int(late and cast(bool, options.check))


def _figures(taken: Distribution) -> dict[str, Any]:
    return {name: taken.percentile(share) for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0))}
