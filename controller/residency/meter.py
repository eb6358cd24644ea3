"""Measures what engines hold: where the YAML gives no figures, and until memory that is to be free is free."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from controller.config.model import Instance as InstanceConfig
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.scales import Settled
from controller.fleet.state import State
from controller.fleet.transitions import Transitions
from controller.residency import release, tenants
from controller.residency.footprint import Footprint
from controller.residency.measured import (
    awake_again,
    capacity,
    differences,
    held_by,
    is_elastic,
    is_steady,
)
from controller.residency.memory import HOST, NOTHING, Memory, gib, larger
from controller.residency.release import Read, Release
from runtime.engines.kinds import command
from runtime.gpus import FIRST_SECONDS, READ_SECONDS, Gpu, Gpus, Panel
from runtime.processes import resident
from state.database import StateError
from state.footprints import Footprints, Measurement

log = logging.getLogger(__name__)

LOOKS = 3
"""So many in a row that see the same: it is steady."""


Keep = Callable[[Instance, Footprint], Awaitable[None]]


def digest_of(config: InstanceConfig) -> str:
    """Of what the engine is started with; of one that runs already, of where it is."""
    spec = config.spec
    start = [spec.base_url] if spec.remote else [command(spec).argv, sorted(command(spec).env.items())]
    text = json.dumps([config.name, spec.kind, spec.model, str(config.venv), start])
    return hashlib.sha256(text.encode()).hexdigest()


class Meter:
    """``capacity``: of the GPUs, as measured; it stays the same object. Without GPUs it does nothing."""

    def __init__(self, fleet: Fleet, panel: Panel, kept: Footprints) -> None:
        self.capacity: dict[str, int] = {}
        self._fleet = fleet
        self._panel = panel
        self._kept = kept
        self._known: dict[str, Measurement] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        await self._read(FIRST_SECONDS)
        if not self.capacity:
            return
        try:
            self._known.update(await self._kept.all())
        except StateError:
            log.exception("what engines were measured to take cannot be read: they are measured again")
        self._fleet.welcome(self._take_in)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, seconds: float = READ_SECONDS) -> tuple[Gpu, ...]:
        gpus = await self._panel.read(seconds)
        self.capacity.update(larger(self.capacity, capacity(gpus)))
        return gpus

    def _take_in(self, one: Transitions) -> None:
        scale = Scale(one, self._read, self._keep)
        known = self._known.get(one.instance.name)
        if known is not None and known.digest == digest_of(one.instance.config):
            scale.remember(Footprint(known.awake, known.asleep))
        one.scales = scale.before
        one.instance.watchers.append(lambda: self._look(scale))

    def _look(self, scale: Scale) -> None:
        if scale.is_due():
            task = asyncio.create_task(scale.measure())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _keep(self, instance: Instance, measured: Footprint) -> None:
        digest, now = digest_of(instance.config), self._fleet.wall()
        self._known[instance.name] = known = Measurement(instance.name, digest, measured.awake, measured.asleep, now)
        try:
            await self._kept.put(known)
        except StateError as broken:
            log.error("what %s was measured to take cannot be kept: %s", instance.name, broken)


class Scale:
    """One instance. Each of its processes is measured once awake, and once at each level of sleep."""

    def __init__(self, transitions: Transitions, read: Read, keep: Keep) -> None:
        self._transitions = transitions
        self._instance = transitions.instance
        self._read = read
        self._keep = keep
        self._since: float | None = None
        self._process: str | None = None
        self._done: set[int] = set()
        self._host_awake: int | None = None
        self._told: set[str] = set()
        self._measured = Footprint(NOTHING)

    def remember(self, measured: Footprint) -> None:
        self._measured = measured
        self._publish()

    # -- what it takes -------------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether it has just become ready, or fallen asleep."""
        instance = self._instance
        if instance.since == self._since or instance.state not in (State.READY, State.ASLEEP):
            return False
        self._since = instance.since
        return instance.state is State.READY or instance.level > 0

    async def measure(self) -> None:
        """Measure it as it is now, unless that is known or it moves on meanwhile. Raises nothing."""
        instance, since = self._instance, self._instance.since
        level = 0 if instance.state is State.READY else instance.level
        try:
            await self._renew()
            if level in self._done:
                return
            pids = await self._transitions.pids()
            held = await self._steady(pids, since)
            host = await asyncio.to_thread(resident, pids)
            if held and instance.since == since:
                self._learn(level, held, host)
                await self._keep(instance, self._measured)
        except Exception:
            log.exception("what %s takes could not be measured", instance.name)

    async def _renew(self) -> None:
        """Another process is another engine, though it may have been started with the same words."""
        process = await self._transitions.process()
        if process != self._process:
            self._process, self._host_awake = process, None
            self._done.clear()

    async def _steady(self, pids: frozenset[int], since: float) -> Memory:
        """What it holds once that does not change any more; nothing if there is nothing to be seen."""
        seen: list[Memory] = []
        until = asyncio.get_running_loop().time() + release.SETTLE_SECONDS
        while self._instance.since == since:
            seen.append(held_by(pids, await self._read()))
            if not seen[-1] or is_steady(seen, LOOKS) or asyncio.get_running_loop().time() > until:
                return seen[-1]
            await asyncio.sleep(release.POLL_SECONDS)
        return NOTHING

    def _learn(self, level: int, held: Memory, host: int) -> None:
        """``level``: 0 if it is awake."""
        before, self._done = self._measured, self._done | {level}
        if level == 0:
            self._host_awake = host
            elastic = is_elastic(self._instance.config.spec.env)
            self._measured = Footprint(awake_again(before.awake, held, elastic=elastic), before.asleep)
        else:
            amount = dict(held)
            if level == 1 and self._host_awake is not None:
                amount[HOST] = max(0, host - self._host_awake)
            known = before.asleep.get(level, NOTHING)
            self._measured = Footprint(before.awake, {**before.asleep, level: larger(known, amount)})
        if self._measured != before:
            log.info("%s was measured to take %s", self._instance.name, _said(held))
            self._publish()

    def _publish(self) -> None:
        """Only with a figure for it awake: it would seem to need nothing."""
        if not self._measured.awake:
            return
        self._instance.learn(self._measured)
        declared = self._instance.config.footprint
        for where, what in differences(declared, self._measured) if declared is not None else ():
            if where not in self._told:
                self._told.add(where)
                log.warning("%s takes %s as the YAML says", self._instance.name, what)

    # -- what it gives back --------------------------------------------------------------------------------------

    async def before(self, _: Instance, level: int) -> Settled:
        """See what it holds before it is told to sleep at ``level``, or ends (0)."""
        awake = tenants.footprint_of(self._instance).awake
        if not awake:
            return _nothing
        try:
            begun = await Release.begin(await self._transitions.pids(), self._read)
        except Exception:
            log.exception("what %s holds cannot be found out", self._instance.name)
            return _nothing
        if begun is None or not (begun.held or level):
            return _nothing

        async def settled() -> None:
            target = self._target(level)
            if not await begun.ends(target, tenants.footprint_of(self._instance).awake):
                log.warning(
                    "%s has not given back its memory within %g s: %s was to stay",
                    self._instance.name,
                    release.SETTLE_SECONDS,
                    _said(target),
                )

        return settled

    def _target(self, level: int) -> Memory:
        if level == 0:
            return NOTHING
        return larger(tenants.footprint_of(self._instance).at(level), self._measured.asleep.get(level, NOTHING))


async def _nothing() -> None:
    """There is nothing to wait for."""


def _said(amount: Memory) -> str:
    return ", ".join(f"{gib(size)} on {place}" for place, size in amount.items()) or "nothing"


@asynccontextmanager
async def metered(fleet: Fleet, gpus: Gpus, kept: Footprints) -> AsyncIterator[Meter]:
    """Engines are measured while open, if there are GPUs. What was measured before is known when this opens."""
    meter = Meter(fleet, Panel(gpus), kept)
    await meter.open()
    try:
        yield meter
    finally:
        await meter.aclose()
