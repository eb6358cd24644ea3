"""What a user can have done to the fleet of one YAML file, each with what it shows and its exit status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Console

from controller.config.model import FRONTEND, Config
from controller.config.schema import LaunchSection
from controller.fleet.keeper import Rest
from controller.launch import logs, orphans, plan, process_tree, report
from controller.launch.display import progress, say
from controller.launch.environment import marker
from controller.launch.exclusion import alone
from controller.launch.gateway import Gateway
from controller.launch.launcher import Launcher, Outcome, State
from controller.launch.orphans import Orphan
from controller.launch.room import Room
from controller.launch.sessions import close_session
from controller.launch.sleeper import Sleeper
from controller.launch.succession import NothingToRenew
from controller.launch.survey import Survey
from controller.launch.tmux import Pane, Tmux
from controller.launch.unit import ROUTER, Unit, frontend_command, frontend_unit, owner_of, units
from runtime.engines.control import open_client
from runtime.gpus import Nvml, Panel
from state.database import StateError, open_database
from state.desired_states import DesiredState, DesiredStates, Wanted
from state.launches import Launches
from state.sleep_marks import SleepMarks

OK, FAILED = 0, 1

BY = "launch.py"
"""Who wants it so."""


class UnknownName(Exception):
    """A name was given that means nothing here; the message lists those that do."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What changes the fleet, while nobody else does."""

    launcher: Launcher
    survey: Survey
    launches: Launches
    desired: DesiredStates

    async def wish(self, units: Sequence[Unit], wanted: Wanted, by: str) -> None:
        await put_wish(self.desired, units, wanted, by)


async def put_wish(desired: DesiredStates, units: Iterable[Unit], wanted: Wanted, by: str) -> None:
    """Have a gateway know what is wanted of the engines and sidecars among ``units``."""
    now = time.time()
    await desired.put(*(DesiredState(unit.name, wanted, now, by) for unit in units if unit.service is not ROUTER))


class Operations:
    """``environment``: the launcher's own, which engines inherit. ``frontend``: how the router is started."""

    def __init__(
        self, config: Config, out: Console, environment: Mapping[str, str], frontend: Sequence[str] | None = None
    ) -> None:
        self._config = config
        self._out = out
        self._tmux = Tmux()
        command = frontend or frontend_command(config)
        self.units = units(config, environment, command)
        self._every = {unit.name: unit for unit in self.units}
        self._every.setdefault(FRONTEND, frontend_unit(config, environment, command))

    def check(self) -> int:
        report.check(self._out, self._config, self.units)
        return OK

    def dry_run(self, only: Sequence[str]) -> int:
        report.commands(self._out, self.startable(only))
        return OK

    async def up(self, only: Sequence[str], *, wait: bool) -> int:
        chosen = self.startable(only)
        async with self._fleet() as tools:
            await tools.wish(chosen, Wanted.RUNNING, BY)
            return await self._up(tools, chosen, wait, asked=bool(only))

    async def restart(self, names: Sequence[str], *, wait: bool) -> int:
        chosen = self.startable(names)
        async with self._fleet() as tools:
            await tools.wish(chosen, Wanted.RUNNING, BY)
            problems: dict[str, str | None] = {}
            others = []
            for unit in chosen:
                try:
                    problems[unit.name] = await tools.launcher.renew(unit)
                except NothingToRenew:
                    others.append(unit)
            problems |= await self._stop(tools.launcher, others)
            stopped = [unit for unit in others if problems[unit.name] is None]
            code = await self._up(tools, stopped, wait, asked=True)
        return FAILED if any(problems.values()) else code

    async def stop(self, names: Sequence[str]) -> int:
        panes = await asyncio.to_thread(self._tmux.panes)
        # what the YAML has lost but still runs can be stopped by its name
        strays = [pane for pane in self._ours(panes) if pane.unit in names and pane.unit not in self._every]
        found = await asyncio.to_thread(orphans.find, owner_of(self._config.file))
        lost = {one.unit for one in found if one.unit in names and one.unit not in self._every}
        chosen = self.named([name for name in names if name not in lost | {pane.unit for pane in strays}])
        async with self._fleet() as tools:
            await tools.wish(chosen, Wanted.STOPPED, f"{BY} --stop")
            problems = await self._stop(tools.launcher, chosen) if chosen else {}
        seconds = self._config.launch.stop_timeout_seconds
        left = await close_sessions(self._tmux, strays, panes, seconds, self._out) if strays else []
        left += await self._end(lost)
        for name in sorted(lost):
            say(self._out, f"{name}: ended")
        return FAILED if left or any(problems.values()) else OK

    async def status(self) -> int:
        async with open_client() as client, open_database(self._config.state_url) as database:
            survey = Survey(self._config, self.units, self._tmux, client, SleepMarks(database))
            rows = await survey.rows(await self._rests(Launches(database), DesiredStates(database)))
            astray = await self.orphans(Launches(database))
        report.table(self._out, rows)
        for orphan in astray:
            say(self._out, f"\n{orphan}; --stop {orphan.unit} ends it")
        await self._say_strays()
        return OK if all(row.healthy for row in rows) else FAILED

    async def kill_all(self) -> int:
        """All sessions of this file, those of instances it no longer names too, and what outlived its session."""
        panes = await asyncio.to_thread(self._tmux.panes)
        await self._wish_all_stopped()
        seconds = self._config.launch.stop_timeout_seconds
        ours = self._ours(panes)
        left = await close_sessions(self._tmux, ours, panes, seconds, self._out)
        found = await asyncio.to_thread(orphans.find, owner_of(self._config.file))
        left += await self._end({*self._every, *(one.unit for one in found)})
        if left:
            say(self._out, f"could not be ended: {', '.join(map(str, sorted(set(left))))}")
            return FAILED
        async with open_database(self._config.state_url) as database:
            for name in {*self._every, *(pane.unit for pane in ours)}:
                await Launches(database).clear(name)
        return OK

    def log(self, name: str, *, follow: bool) -> int:
        unit = self.named([name])[0]
        if not follow and not unit.log.exists():
            say(self._out, f"{name} has no log yet: {unit.log} does not exist")
            return FAILED
        for piece in logs.read(unit.log, follow):
            self._out.file.write(piece)
            self._out.file.flush()
        return OK

    def startable(self, names: Sequence[str]) -> tuple[Unit, ...]:
        """The units called ``names``, in the file's order; all when no name is given."""
        if FRONTEND in names and not self._config.router.enable_router:
            raise UnknownName("the router is off in this file: set router.enable_router to true")
        chosen = self.named(names)
        return tuple(unit for unit in self.units if not names or unit in chosen)

    def named(self, names: Sequence[str]) -> tuple[Unit, ...]:
        """An engine comes with its sidecar; a sidecar goes alone."""
        elsewhere = {instance.name for instance in self._config.instances if not instance.launched}
        for name in names:
            if name in elsewhere:
                raise UnknownName(f"{name} has a url: the launcher neither starts nor stops it")
            if name not in self._every:
                raise UnknownName(f"there is no {name!r} here; the known names are {', '.join(self._every)}")
        beside = {one.name: one.sidecar.name for one in self._config.instances if one.sidecar}
        whole = [part for name in names for part in (name, *([beside[name]] if name in beside else []))]
        return tuple(self._every[name] for name in dict.fromkeys(whole))

    @asynccontextmanager
    async def _fleet(self) -> AsyncIterator[Tools]:
        await asyncio.to_thread(self._tmux.panes)  # tmux missing is said before anything else is tried
        async with alone(self._config.file), open_client() as client, open_database(self._config.state_url) as database:
            marks, launches, desired = SleepMarks(database), Launches(database), DesiredStates(database)
            survey = Survey(self._config, tuple(self._every.values()), self._tmux, client, marks)
            sleeper = Sleeper(self._config, client, marks, Panel(Nvml()))
            with progress(self._out) as display:
                room = Room(Gateway(self._config, client))
                launcher = Launcher(self._config, survey, self._tmux, launches, sleeper, display, room)
                yield Tools(launcher, survey, launches, desired)

    async def _end(self, names: Iterable[str]) -> list[int]:
        """What runs under these names without a session. Returns the pids of those that could not be ended."""
        owner, seconds = owner_of(self._config.file), self._config.launch.stop_timeout_seconds
        left = [await asyncio.to_thread(process_tree.stop, None, marker(owner, name), seconds) for name in names]
        return [pid for pids in left for pid in pids]

    async def orphans(self, launches: Launches) -> list[Orphan]:
        """What runs without a session of this file."""
        panes = self._ours(await asyncio.to_thread(self._tmux.panes))
        found = await asyncio.to_thread(orphans.find, owner_of(self._config.file))
        return orphans.judge(found, panes, self._every, await launches.all())

    async def _rests(self, launches: Launches, desired: DesiredStates) -> dict[str, Rest]:
        """Why nothing runs of those where that is as it should be, unless something does."""
        records, wanted = await launches.all(), await desired.all()
        found = {
            one.name: plan.rest(one, records.get(one.name), wanted.get(one.name)) for one in self._config.instances
        }
        return {name: rest for name, rest in found.items() if rest is not None}

    async def _wish_all_stopped(self) -> None:
        """Or a gateway that still runs would start what is killed. Without a database it must be possible, too."""
        try:
            async with open_database(self._config.state_url) as database:
                await put_wish(DesiredStates(database), self._every.values(), Wanted.STOPPED, f"{BY} --kill-all")
        except StateError as broken:
            say(self._out, str(broken))

    async def _up(self, tools: Tools, chosen: Sequence[Unit], wait: bool, *, asked: bool) -> int:
        outcomes = await tools.launcher.up(chosen, wait=wait, asked=asked)
        failures = {name: outcome.detail for name, outcome in outcomes.items() if outcome.state is State.FAILED}
        code = await self._sum_up(tools, failures)
        for name, outcome in outcomes.items():
            if outcome.state is State.NO_ROOM:
                say(self._out, f"\n{name}: {outcome.detail}")
        self._say_differences(outcomes)
        await self._say_strays()
        if not wait and any(plan.before(unit, chosen) for unit in chosen):
            say(self._out, "\n--no-wait: engines that may share a GPU load at the same time, and may run out of memory")
        report.address(self._out, self._config)
        for warning in report.openness(self._config):
            say(self._out, f"\n{warning}")
        return code

    async def _sum_up(self, tools: Tools, failures: Mapping[str, str]) -> int:
        """What is there now, and what went wrong."""
        rows = await tools.survey.rows(await self._rests(tools.launches, tools.desired), failures)
        if not self._config.router.enable_router:
            rows = [row for row in rows if row.name != FRONTEND]
        say(self._out)
        report.table(self._out, rows)
        for name, reason in failures.items():
            say(self._out, f"\n{name} failed: {reason}")
        return FAILED if failures else OK

    async def _say_strays(self) -> None:
        for pane in self._ours(await asyncio.to_thread(self._tmux.panes)):
            if pane.unit not in {unit.name for unit in self.units}:
                say(self._out, f"\n{pane.session} is not in the YAML any more and was left alone: --stop {pane.unit}")

    def _say_differences(self, outcomes: Mapping[str, Outcome]) -> None:
        for name, outcome in outcomes.items():
            if outcome.differences:
                say(self._out, f"\n{name} differs from the YAML and was left as it is (--restart {name} applies it):")
                for difference in outcome.differences:
                    say(self._out, f"  {difference}")

    async def _stop(self, launcher: Launcher, chosen: Sequence[Unit]) -> Mapping[str, str | None]:
        problems = await launcher.stop(chosen)
        for name, problem in problems.items():
            say(self._out, f"{name}: {problem or 'stopped'}")
        return problems

    def _ours(self, panes: Sequence[Pane]) -> list[Pane]:
        return [pane for pane in panes if pane.config == owner_of(self._config.file)]


def sessions_of(panes: Sequence[Pane], file: Path, prefix: str | None) -> list[Pane]:
    """The panes of this file's sessions; with a ``prefix`` those of every session that begins so, too."""
    owner = owner_of(file)
    chosen = [p for p in panes if p.config == owner or (prefix is not None and p.session.startswith(prefix))]
    tagged = {pane.session for pane in chosen if pane.config}
    return [pane for pane in chosen if pane.config or pane.session not in tagged]


async def close_sessions(
    tmux: Tmux, chosen: Sequence[Pane], panes: Sequence[Pane], seconds: float, out: Console
) -> list[int]:
    """End the sessions that ``chosen`` are in, all at once; the pids that could not be ended."""
    names = {pane.session for pane in chosen}
    inside = sorted((pane for pane in panes if pane.session in names), key=lambda pane: pane.session)
    sessions = [list(group) for _, group in groupby(inside, key=lambda pane: pane.session)]
    left = await asyncio.gather(*(asyncio.to_thread(close_session, tmux, group, seconds) for group in sessions))
    for group, pids in zip(sessions, left, strict=True):
        ending = f"not all of it could be ended: {', '.join(map(str, pids))}" if pids else "stopped"
        say(out, f"{group[0].session}: {ending}")
    if not sessions:
        say(out, "no sessions")
    return [pid for pids in left for pid in pids]


async def kill_sessions(out: Console, file: Path, prefix: str | None) -> int:
    """End sessions without a valid configuration: this file's, known by their tags, and those with ``prefix``."""
    tmux = Tmux()
    panes = await asyncio.to_thread(tmux.panes)
    chosen = sessions_of(panes, file, prefix)
    left = await close_sessions(tmux, chosen, panes, LaunchSection().stop_timeout_seconds, out)
    return FAILED if left else OK
