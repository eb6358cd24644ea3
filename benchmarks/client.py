"""The load client for one model: ``python -m benchmarks.client --base-url http://127.0.0.1:8080 --model NAME``."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.answer import Answer
from benchmarks.connection import Server
from benchmarks.live import view
from benchmarks.load import Prompts, arrivals
from benchmarks.measure import Tally, Wire
from benchmarks.settings import Load, add_load_options, base_url, read_key

PAUSE_SECONDS = 0.1
"""A closed loop rests so long after an error: a server that refuses at once is not to be stormed."""

SWITCH_SECONDS = 0.0005
"""How long the thread that draws may keep an arriving chunk waiting."""

GATE_SECONDS = 900.0
POLL_SECONDS = 0.02


class Client:
    """Makes the load and measures. ``stop`` ends it at once: what is in flight is abandoned."""

    def __init__(self, server: Server, prompts: Prompts, load: Load) -> None:
        self.tally = Tally()
        self.wire = Wire()
        self.in_flight = 0
        self.began: float | None = None
        self.ended: float | None = None
        self.interrupted = False
        self._server = server
        self._prompts = prompts
        self._load = load
        self._made = 0
        self._running: set[asyncio.Task[None]] = set()

    @property
    def seconds(self) -> float:
        """Measured so far."""
        return 0.0 if self.began is None else (self.ended or time.perf_counter()) - self.began

    async def warm_up(self) -> None:
        discarded = Tally()
        await self._closed(discarded, self._load.warmup, None)

    async def run(self) -> None:
        if self.interrupted:
            return
        load = self._load
        if load.request_rate is None:
            try:
                await self._server.open(load.concurrency)
            except OSError:
                pass  # each request will say so
        self.began = time.perf_counter()
        deadline = None if load.duration is None else self.began + load.duration
        if load.request_rate is None:
            await self._closed(self.tally, load.num_requests, deadline)
        else:
            await self._open(load.request_rate)
        self.ended = time.perf_counter()

    def stop(self) -> None:
        self.interrupted = True
        for task in self._running:
            task.cancel()

    async def _closed(self, tally: Tally, number: int | None, deadline: float | None) -> None:
        """``concurrency`` at a time: each starts when one has ended."""
        left = number

        async def one_after_another() -> None:
            nonlocal left
            while (left is None or left > 0) and not self.interrupted:
                intended = time.perf_counter()
                if deadline is not None and intended >= deadline:
                    return
                if left is not None:
                    left -= 1
                answer = await self._one(tally, intended)
                if answer.problem is not None:
                    await asyncio.sleep(PAUSE_SECONDS)

        for _ in range(self._load.concurrency):
            self._start(one_after_another())
        await self._all_done()

    async def _open(self, rate: float) -> None:
        """At their own times, whatever became of those before."""

        async def one(intended: float) -> None:
            await self._one(self.tally, intended)

        async def all_in_time(began: float) -> None:
            load, seed = self._load, f"{self._load.seed} {self._prompts.model}"
            for offset in arrivals(rate, seed, load.duration, load.num_requests):
                intended = began + offset
                delay = intended - time.perf_counter()
                if delay > 0:
                    await asyncio.sleep(delay)
                self._start(one(intended))

        assert self.began is not None
        self._start(all_in_time(self.began))
        await self._all_done()

    async def _one(self, tally: Tally, intended: float) -> Answer:
        answer = Answer()
        body = self._prompts.body(self._made)
        self._made += 1
        self.in_flight += 1
        try:
            await self._server.post(body, answer)
        except asyncio.CancelledError:
            tally.abandoned += 1
            answer.fail("abandoned", time.perf_counter())
            self.wire.take(answer)
            raise
        finally:
            self.in_flight -= 1
        tally.take(answer, intended)
        self.wire.take(answer)
        return answer

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _all_done(self) -> None:
        while self._running:
            done, _ = await asyncio.wait(self._running)
            for task in done:
                if not task.cancelled():
                    task.result()


class Rendezvous:
    """Where ``orchestra`` and its clients meet: all begin together, and each leaves its result. ``at``: FOLDER/NAME."""

    def __init__(self, at: Path) -> None:
        self._go = at.with_name("go")
        self._ready = at.with_name(f"{at.name}.ready")
        self._result = at.with_name(f"{at.name}.json")

    async def meet(self, client: Client) -> None:
        self._ready.touch()
        deadline = time.monotonic() + GATE_SECONDS
        while not self._go.exists() and not client.interrupted:
            if time.monotonic() > deadline:
                client.stop()
            await asyncio.sleep(POLL_SECONDS)

    def leave(self, result: dict[str, Any]) -> None:
        part = self._result.with_suffix(".part")
        part.write_text(json.dumps(result))
        part.rename(self._result)


async def measure(options: argparse.Namespace, key: str | None) -> Client:
    load = Load.of(options)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    server = Server(options.base_url, load.path, headers, load.timeout)
    client = Client(server, Prompts(options.model, load, engine_options=options.engine_options), load)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, client.stop)
    meeting = Rendezvous(options.rendezvous) if options.rendezvous else None
    with view(client, options.model, load.describe(), plain=options.plain) as watched:
        watcher = loop.create_task(watched.watch())
        await client.warm_up()
        if meeting is not None:
            await meeting.meet(client)
        cpu = time.process_time()
        await client.run()
        cpu = time.process_time() - cpu
        watcher.cancel()
    server.close()
    if meeting is not None:
        meeting.leave(result_of(client, cpu))
    return client


def result_of(client: Client, cpu_seconds: float) -> dict[str, Any]:
    return {
        "seconds": client.seconds,
        "cpu_seconds": cpu_seconds,
        "interrupted": client.interrupted,
        "tally": client.tally.dump(),
        "wire": client.wire.dump(),
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__, allow_abbrev=False)
    parser.add_argument("--base-url", type=base_url, required=True, metavar="URL", help="the server's address")
    parser.add_argument("--model", required=True, help="the model to ask for")
    parser.add_argument("--api-key-env", metavar="VARIABLE", help="environment variable that holds the API key")
    parser.add_argument(
        "--engine-options",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="send ignore_eos, which vLLM and SGLang know, so that answers have their full length",
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of a live table")
    parser.add_argument("--rendezvous", type=Path, help=argparse.SUPPRESS)
    add_load_options(parser)
    options = parser.parse_args(argv)
    try:
        options.key = read_key(options.api_key_env)
    except ValueError as missing:
        parser.error(str(missing))
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when all went well, 1 when a request failed."""
    options = parse(argv)
    sys.setswitchinterval(SWITCH_SECONDS)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    client = uvloop.run(measure(options, options.key))
    return 1 if client.tally.failed or not client.tally.finished else 0


if __name__ == "__main__":
    sys.exit(main())
