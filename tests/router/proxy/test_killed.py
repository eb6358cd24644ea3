"""A replica is killed under load: nobody whose answer had not begun is told."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any, cast

import pytest

from tests.router.gateway import Gateway, Sim, gateway, until
from tests.router.proxy.scripted import Received, answer, replicas
from tests.runtime.engines.sim.stage import program

pytestmark = pytest.mark.anyio

AT_ONCE, AFTER = 16, 10
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n"


@dataclass(frozen=True)
class Process:
    """One engine as a process of its own; to ``gateway`` an instance of model ``m``."""

    name: str
    url: str
    process: Popen[str]

    @property
    def spec(self) -> Process:
        return self

    def entry(self, url: str) -> dict[str, Any]:
        return {"name": self.name, "model": "m", "engine": "sim", "url": url}


@contextlib.contextmanager
def two() -> Iterator[dict[str, Process]]:
    words = ("--served-model-name", "m", "--ttft", "0.05", "--tokens-per-second", "500")
    with program(*words) as (first, one), program(*words) as (second, other):
        yield {"a": Process("a", first, one), "b": Process("b", second, other)}


@pytest.mark.usefixtures("each_door")
@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 O", HEAD], ids=["in its head", "behind its head"])
async def test_one_that_has_sent_a_head_alone_has_not_begun(tmp_path: Path, sent: bytes) -> None:
    """Nobody has been told of its answer: the other replica gives one."""

    async def dies(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0.05)  # so that it comes in a read of its own
        writer.close()

    async with replicas(tmp_path, {"a": dies, "b": answer(b'{"from": "b"}')}) as (running, engines):
        answers = [await running.complete("one") for _ in range(4)]
        assert [one.text for one in answers] == ['{"from": "b"}'] * 4
        assert engines["a"].received


@pytest.mark.usefixtures("each_door")
async def test_no_request_fails_when_one_of_two_is_killed(tmp_path: Path) -> None:
    """With kill -9, while it works on some; the other one does them too, and all that come after."""
    statuses: Counter[int] = Counter()
    killed = asyncio.Event()

    async def ask(running: Gateway) -> None:
        left = AFTER
        while left:
            left -= killed.is_set()
            answer = await running.complete("m", max_tokens=20)
            statuses[answer.status_code] += 1

    with two() as engines:
        async with gateway(tmp_path, cast(dict[str, Sim], engines)) as running, asyncio.TaskGroup() as clients:
            for _ in range(AT_ONCE):
                clients.create_task(ask(running))
            await until(lambda: statuses[200] >= AT_ONCE and running.instance("a").in_flight >= 4)
            engines["a"].process.send_signal(signal.SIGKILL)
            killed.set()
        assert statuses == {200: statuses.total()}
        assert statuses.total() >= AT_ONCE * (AFTER + 1)
        assert running.in_flight == 0
