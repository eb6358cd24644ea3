"""Looks at the machine and the fleet of one YAML file, and shows what is found. Changes nothing."""

from __future__ import annotations

import asyncio
import resource
import shutil
import subprocess
from pathlib import Path

import psutil

from controller.config.model import Instance
from controller.doctor.finding import Facts, Level, Program
from controller.doctor.judgement import judge
from controller.launch import report
from controller.launch.display import say
from controller.launch.operations import FAILED, OK, Operations
from controller.launch.preflight import missing_program, module_of, port_taken
from controller.launch.tmux import TmuxError
from controller.launch.unit import Unit
from runtime.address import is_loopback
from runtime.gpus import Nvml
from state.database import StateError, open_database
from state.launches import Launches

VERSION_SECONDS = 30
VERSION = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


class Examination(Operations):
    async def doctor(self) -> int:
        """1 when there is a problem."""
        facts = await self._facts()
        findings = judge(self._config, facts)
        for finding in findings:
            say(self._out, str(finding))
        bad = sum(finding.level is Level.PROBLEM for finding in findings)
        worth = sum(finding.level is Level.WARNING for finding in findings)
        say(self._out, f"\n{_number(bad, 'problem')}, {_number(worth, 'warning')}")
        return FAILED if bad else OK

    async def _facts(self) -> Facts:
        tmux = await asyncio.to_thread(_tmux_version)
        try:
            panes = self._ours(await asyncio.to_thread(self._tmux.panes))
        except TmuxError:
            panes = []
        problem, astray = None, []
        try:
            async with open_database(self._config.state_url) as database:
                astray = [] if tmux is None else await self.orphans(Launches(database))
        except StateError as broken:
            problem = str(broken)
        housed = {pane.unit for pane in panes if not pane.dead} | {one.unit for one in astray if one.leads}
        programs = await asyncio.gather(*(asyncio.to_thread(_program, unit, housed) for unit in self.units))
        gpus = await asyncio.to_thread(Nvml().look)
        return Facts(
            tmux=tmux,
            gpus={one.number: one.total for one in gpus},
            memory=psutil.virtual_memory().total,
            log_space=shutil.disk_usage(_existing(self._config.log_dir)).free,
            files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            programs=tuple(programs),
            state_problem=problem,
            orphans=tuple(map(str, astray)),
            strays=tuple(sorted({pane.unit for pane in panes if pane.unit not in self._every})),
            open=(*report.openness(self._config), *map(_administration, self._bare())),
        )

    def _bare(self) -> list[Instance]:
        """Engines that others reach, and whose key guards what clients use only."""
        return [
            one
            for one in self._config.instances
            if one.launched and one.spec.api_key is not None and not is_loopback(one.spec.host)
        ]


def _administration(instance: Instance) -> str:
    return (
        f"{instance.name} listens on {instance.spec.host}:{instance.spec.port}: an engine's key guards /v1, and not "
        "what puts it to sleep. Set host: 127.0.0.1, or close the port to others."
    )


def _program(unit: Unit, housed: set[str]) -> Program:
    missing = missing_program(unit)
    holder = None if unit.name in housed else port_taken(unit.host, unit.port)
    version = None if missing or unit.instance is None else _version(unit)
    return Program(unit.name, unit.port, holder and holder.partition(" by ")[2], missing, version)


def _version(unit: Unit) -> str | None:
    """Of the package that is run; None for one that is not installed as such."""
    _, module = module_of(unit.argv)
    if module is None:
        return None
    package = module.partition(".")[0]
    found = _output([unit.argv[0], "-c", VERSION, package], unit)
    return f"{package} {found}" if found else None


def _tmux_version() -> str | None:
    program = shutil.which("tmux")
    return None if program is None else _output([program, "-V"]) or None


def _output(argv: list[str], unit: Unit | None = None) -> str:
    try:
        done = subprocess.run(
            argv,
            cwd=unit.folder if unit else None,
            env=dict(unit.environment) if unit else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.exists())
