"""Where clients run: each in its tmux session, or all as child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from controller.config.model import Config, session_name
from controller.launch import logs
from controller.launch.environment import MARKER, inherited, marker
from controller.launch.handover import Handover, HandoverFailed
from controller.launch.sessions import close_session
from controller.launch.tmux import Tmux, TmuxError
from runtime.processes import identity, is_running

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "benchmark-"
STOP_SECONDS = 5.0


class CannotRun(Exception):
    """A client could not be started; the message says why."""


class Place(Protocol):
    """Clients are known by their sessions' names. ``stop`` asks one to end; ``close`` leaves nothing of it.

    ``start`` and ``close`` raise ``CannotRun``.
    """

    def start(self, session: str, argv: Sequence[str]) -> None: ...

    def runs(self, session: str) -> bool: ...

    def stop(self, session: str) -> None: ...

    def close(self, session: str) -> None: ...


class Sessions:
    """tmux. A session stays when its client has ended, so that one can look; the next run replaces it."""

    def __init__(self, config: Config, environment: Mapping[str, str]) -> None:
        self._tmux = Tmux()
        self._owner = f"{PREFIX}of {config.file}"  # not the launcher's mark: these are not its to keep or to count
        self._folder = config.log_dir
        self._environment = inherited(environment)
        self._processes: dict[str, str | None] = {}

    def start(self, session: str, argv: Sequence[str]) -> None:
        try:
            self._open(session, argv)
        except (TmuxError, HandoverFailed, OSError) as failed:
            raise CannotRun(str(failed)) from failed

    def runs(self, session: str) -> bool:
        process = self._processes.get(session)
        return process is not None and is_running(process)

    def stop(self, session: str) -> None:
        process = self._processes.get(session)
        if process is not None and is_running(process):
            os.kill(int(process.partition(":")[0]), signal.SIGTERM)

    def close(self, session: str) -> None:
        panes = [pane for pane in self._tmux.panes() if pane.session == session]
        if panes and not any(pane.config.startswith(PREFIX) for pane in panes):
            raise CannotRun(f"the tmux session {session} is not a benchmark's; it was left alone")
        if panes:
            close_session(self._tmux, panes, STOP_SECONDS)

    def _open(self, session: str, argv: Sequence[str]) -> None:
        log = self._folder / f"{session}.log"
        logs.rotate(log)
        environment = {**self._environment, MARKER: marker(self._owner, session)}
        with Handover() as handover:
            pane = self._tmux.create(session, handover.argv, folder=ROOT, log=log, unit=session, config=self._owner)
            self._processes[session] = identity(pane.pid)
            handover.give(argv, environment, ROOT, lambda: identity(pane.pid) is not None)


class Children:
    """Child processes that print lines where this program prints."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, session: str, argv: Sequence[str]) -> None:
        sys.stdout.flush()
        self._processes[session] = subprocess.Popen(
            [*argv, "--plain"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for this program, which tells them
        )

    def runs(self, session: str) -> bool:
        process = self._processes.get(session)
        return process is not None and process.poll() is None

    def stop(self, session: str) -> None:
        if self.runs(session):
            self._processes[session].terminate()

    def close(self, session: str) -> None:
        process = self._processes.pop(session, None)
        if process is not None:
            process.kill()
            process.wait()


def session_of(name: str) -> str:
    return session_name(PREFIX, name)
