"""Brings what runs to what the YAML says now, engine by engine, without losing a request."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from controller.config.model import Config
from controller.launch import plan
from controller.launch.gateway import Gateway, GatewayPlan, GatewayRefused, NoGateway
from controller.launch.launcher import Launcher, State
from controller.launch.plan import Seen, Step
from controller.launch.succession import NothingToRenew
from controller.launch.tmux import Pane
from controller.launch.unit import ROUTER, Unit
from state.desired_states import DesiredStates, Wanted

KEY_SECONDS = 10.0
"""For which a gateway that was told to take another key is asked with it."""

Close = Callable[[Pane], Awaitable[str | None]]
"""Ends the session of something that the YAML has no more; why it could not, if so."""


@dataclass(frozen=True, slots=True)
class Steps:
    """``restart``: with the reasons. ``stop``: what the YAML has no more."""

    start: tuple[Unit, ...] = ()
    restart: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stop: tuple[Pane, ...] = ()

    def lines(self) -> list[str]:
        return [
            *(f"{pane.unit}: stop" for pane in self.stop),
            *(f"{unit.name}: start" for unit in self.start),
            *(f"{name}: start anew ({'; '.join(reasons)})" for name, reasons in self.restart.items()),
        ]


def steps_of(
    units: Sequence[Unit], seen: Mapping[str, Seen], strays: Sequence[Pane], rests: Collection[str] = ()
) -> Steps:
    """What to do about the processes. Pure. The frontend's YAML is applied by itself.

    ``rests``: those of which nothing runs, as it should be.
    """
    decisions = {unit.name: plan.decide(unit, seen[unit.name]) for unit in units}
    down = [unit for unit in units if decisions[unit.name].step in (Step.START, Step.REFUSE)]
    start = tuple(unit for unit in down if unit.name not in rests)
    restart = {
        unit.name: decisions[unit.name].differences
        for unit in units
        if unit.service is not ROUTER and decisions[unit.name].differences
    }
    return Steps(start, restart, tuple(strays))


class Rollout:
    """``tell``: what is being done. ``failures``: what could not be, by name."""

    def __init__(
        self,
        config: Config,
        launcher: Launcher,
        gateway: Gateway,
        desired: DesiredStates,
        tell: Callable[[str], None],
    ) -> None:
        self._config = config
        self._launcher = launcher
        self._gateway = gateway
        self._desired = desired
        self._tell = tell
        self.failures: dict[str, str] = {}

    async def apply(self, frontend: Pane | None) -> GatewayPlan | None:
        """Have the gateway apply the YAML; None when there is none. Raises ``GatewayRefused``: nothing is changed.

        One that has another key as yet is told by a signal first.
        """
        try:
            return await self._gateway.apply()
        except NoGateway:
            return None
        except GatewayRefused as refused:
            if refused.status != 401 or frontend is None:
                raise
        self._tell(f"{frontend.unit}: wants another key as yet, and is told by a signal")
        os.kill(frontend.pid, signal.SIGUSR1)
        deadline = time.monotonic() + KEY_SECONDS
        while True:
            await asyncio.sleep(0.1)
            try:
                return await self._gateway.apply()
            except GatewayRefused as refused:
                if refused.status != 401 or time.monotonic() > deadline:
                    raise

    async def carry_out(self, steps: Steps, units: Sequence[Unit], close: Close) -> None:
        """One engine after the other: of several replicas all but one serve. New ones as there is room for them."""
        for pane in steps.stop:
            if await self._drained(pane.unit, self._config.sleep.drain_timeout_seconds):
                problem = await close(pane)
                self._tell(f"{pane.unit}: {problem or 'stopped'}")
                if problem is not None:
                    self.failures[pane.unit] = problem
        for unit in units:
            if unit.name in steps.restart:
                await (self._start_anew(unit) if unit.instance is not None else self.start_at_once(unit))
        await self.start(steps.start)

    async def start(self, units: Sequence[Unit]) -> None:
        outcomes = await self._launcher.up(units)
        self.failures |= {name: one.detail for name, one in outcomes.items() if one.state is State.FAILED}
        for name, one in outcomes.items():
            if one.state is State.NO_ROOM:
                self._tell(f"{name}: {one.detail}")

    async def renew_frontend(self, unit: Unit) -> None:
        try:
            problem = await self._launcher.renew(unit)
        except NothingToRenew:
            await self.start_at_once(unit)
            return
        if problem is not None:
            self.failures[unit.name] = problem

    async def start_at_once(self, unit: Unit) -> None:
        """Start it anew; nobody is drained for it."""
        problem = (await self._launcher.stop([unit]))[unit.name]
        if problem is not None:
            self.failures[unit.name] = problem
        else:
            await self.start([unit])

    async def _start_anew(self, unit: Unit) -> None:
        assert unit.instance is not None
        if not await self._drained(unit.name, unit.instance.sleep.drain_timeout_seconds):
            return
        try:
            problem = (await self._launcher.stop([unit]))[unit.name]
            if problem is not None:
                self.failures[unit.name] = problem
            elif (wish := (await self._desired.all()).get(unit.name)) and wish.wanted is Wanted.STOPPED:
                self._tell(f"{unit.name}: stopped by {wish.by} meanwhile, and stays so")
            else:
                await self.start([unit])
        finally:
            await self._admitted(unit.name)

    async def _drained(self, name: str, seconds: float) -> bool:
        """Whether it may be ended now. Without a gateway nobody is known to be asking it."""
        self._tell(f"{name}: draining")
        try:
            await self._gateway.drain(name, seconds)
        except NoGateway as silent:
            self._tell(f"{name}: not drained, {silent}")
        except GatewayRefused as refused:
            self.failures[name] = str(refused)
            return False
        return True

    async def _admitted(self, name: str) -> None:
        try:
            await self._gateway.admit(name)
        except (NoGateway, GatewayRefused) as silent:  # it looks by itself before long
            self._tell(f"{name}: {silent}")
