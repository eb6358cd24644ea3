"""A gateway over simulated engines that the launcher has started, in real tmux sessions on a private socket."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from controller.config.load import load
from controller.fleet import watcher
from controller.fleet.state import State
from controller.launch.unit import Unit, units
from controller.supervisor import policy, rounds
from controller.supervisor.sidecars import Sidecars
from controller.supervisor.supervisor import Supervisor
from runtime.processes import identity
from tests.controller.launch.conftest import Workplace
from tests.controller.launch.conftest import workplace as workplace
from tests.ports import free_port
from tests.router.gateway import Gateway, gateway_of, until

LOOKERS = (Supervisor, Sidecars)
PACE = "--ttft 0 --tokens-per-second 0 --sleep-seconds 0 --wake-seconds 0 --log-level error --enable-sleep-mode"


def sim(name: str, more: str = "", **keys: Any) -> dict[str, Any]:
    """A simulated engine that the launcher starts."""
    return {"model": name, "name": name, "engine": "sim", "port": free_port(), "engine_args": f"{PACE} {more}", **keys}


def unit_of(workplace: Workplace, name: str) -> Unit:
    return next(one for one in units(load(workplace.file), {}, []) if one.name == name)


@dataclass
class Kept:
    """A gateway, and what the launcher does beside it."""

    gateway: Gateway
    workplace: Workplace
    looks: Counter[type]

    def pid(self, name: str) -> int:
        return self.workplace.program(name).pid

    def kill(self, name: str) -> int:
        """As the kernel does when memory is short. Returns the pid."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    async def is_(self, name: str, *states: State) -> None:
        await until(lambda: self.gateway.state(name) in states)

    async def looked(self) -> None:
        """Once more at all engines and all sidecars, from now on."""
        before = self.looks.copy()
        await until(lambda: all(self.looks[kind] >= before[kind] + 2 for kind in LOOKERS))

    async def launch(self, verb: str, *names: str) -> int:
        """The launcher, as a user runs it meanwhile."""
        code: int = await asyncio.to_thread(getattr(self.workplace, verb), *names)
        return code

    async def act(self, verb: str, name: str) -> Any:
        return await self.gateway.client.post(f"/action/{verb}/{name}")

    def events(self, name: str) -> list[str]:
        return [event.what.value for event in self.gateway.fleet.journal.recent if event.instance == name]


@asynccontextmanager
async def kept(workplace: Workplace, *, up: bool = True) -> AsyncIterator[Kept]:
    """``up``: launched first."""
    if up:
        await asyncio.to_thread(workplace.up)
    pauses, looks = dict.fromkeys(watcher.LOOK_SECONDS, 0.05), Counter[type]()
    with (
        mock.patch.object(Supervisor, "look", counted(Supervisor, looks)),
        mock.patch.object(Sidecars, "look", counted(Sidecars, looks)),
        mock.patch.object(rounds, "LOOK_SECONDS", 0.05),
        mock.patch.object(watcher, "LOOK_SECONDS", pauses),
        mock.patch.object(policy, "FIRST_PAUSE", 0.05),
    ):
        async with gateway_of(workplace.config(), {}) as gateway:
            yield Kept(gateway, workplace, looks)


def counted(kind: Any, looks: Counter[type]) -> Callable[[Any], Awaitable[None]]:
    look = kind.look

    async def look_and_count(self: Any) -> None:
        await look(self)
        looks[kind] += 1

    return look_and_count


def wait_for_the_end_of(pid: int) -> None:
    """Blocks, so that nothing here notices in the meantime."""
    while runs(pid):
        time.sleep(0.01)


def runs(pid: int) -> bool:
    return identity(pid) is not None
