"""tmux, by its exact names: one session for each thing that runs. The only module that knows libtmux. All of it blocks.

A session made here carries whose it is (``@torpor_config``, ``@torpor_unit``) on the pane in which the program runs,
so that a session of the same name made by somebody else, or a pane that the user split off, is never taken for ours.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

HISTORY_LINES = 100_000
WIDTH, HEIGHT = 200, 50
FIELDS = (
    "pane_dead",
    "pane_dead_status",
    "pane_dead_signal",
    "pane_pid",
    "pane_id",
    "session_attached",
    "session_created",
    "@torpor_unit",
    "@torpor_config",
    "session_name",  # last: a stranger's may hold the separator
)
SEPARATOR = "|"
GOING = ("server exited", "lost server")
TRIES, TRY_PAUSE = 5, 0.1
NO_SERVER = (
    "no server running",
    "error connecting",
    "server exited",
    "lost server",
    "no current session",
    "no current target",  # the last session is just going
)
MISSING = """\
tmux is not installed, and engines run in tmux sessions. Install it:
  Debian, Ubuntu  apt-get install tmux
  Fedora, RHEL    dnf install tmux
  Arch            pacman -S tmux
  Alpine          apk add tmux
  macOS           brew install tmux"""

# libtmux writes whole command lines at this level's neighbours; ours hold no secrets, but nobody needs them.
logging.getLogger("libtmux").setLevel(logging.WARNING)


class TmuxError(Exception):
    """tmux did not do what it was told."""


class TmuxMissing(TmuxError):
    def __init__(self) -> None:
        super().__init__(MISSING)


@dataclass(frozen=True, slots=True)
class Pane:
    """One pane. ``unit`` and ``config`` are empty where we did not make it. ``status``: how a dead one ended."""

    id: str
    session: str
    pid: int
    dead: bool
    status: str = ""
    unit: str = ""
    config: str = ""
    attached: bool = False
    created: int = 0


def sockets() -> Path:
    """Where tmux has the folder with the user's sockets."""
    wanted = Path(os.environ.get("TMUX_TMPDIR") or "/tmp")
    return wanted if wanted.is_dir() else Path("/tmp")


class Tmux:
    """The user's tmux server, at the default socket (below ``TMUX_TMPDIR`` if set), inside of tmux and outside."""

    def panes(self) -> tuple[Pane, ...]:
        """Every pane there is. None when no server runs, which is normal."""
        listing = SEPARATOR.join(f"#{{{field}}}" for field in FIELDS)
        try:
            lines = self._run("list-panes", "-a", "-F", listing)
        except TmuxError as failed:
            if any(sign in str(failed) for sign in NO_SERVER):
                return ()
            raise
        return tuple(_pane(line) for line in lines)

    def create(self, session: str, argv: Sequence[str], *, folder: Path, log: Path, unit: str, config: str) -> Pane:
        """Make ``session`` and run ``argv`` in it, without a shell, everything it prints going to ``log`` too.

        ``argv`` must not print before it has been told to: the log is connected only when this returns.
        """
        exact = f"={session}:"
        size = ("-x", str(WIDTH), "-y", str(HEIGHT))
        # One invocation, so that a `destroy-unattached on` in the user's tmux.conf finds no moment to strike. The first
        # window is there because a pane takes its history limit from the session at birth.
        made = self._run_on_a_server(
            *("new-session", "-d", "-s", session, *size, "-n", "setup", "-c", str(folder), "sleep", "60", ";"),
            *("set-option", "-t", exact, "destroy-unattached", "off", ";"),
            *("set-option", "-t", exact, "history-limit", str(HISTORY_LINES), ";"),
            *("set-option", "-t", exact, "mouse", "on", ";"),
            *("new-window", "-d", "-t", exact, "-n", session, "-c", str(folder), "-P", "-F", "#{pane_id} #{pane_pid}"),
            *argv,
        )
        pane, _, pid = made[-1].partition(" ")
        self._run("set-option", "-p", "-t", pane, "remain-on-exit", "on")
        for name, content in (("unit", unit), ("config", config)):
            self._run("set-option", "-p", "-t", pane, f"@torpor_{name}", quote(content, safe="/"))
        command = f"exec cat >> {shlex.quote(str(log))}"
        # tmux expands formats and strftime's signs in it
        self._run("pipe-pane", "-t", pane, command.replace("#", "##").replace("%", "%%"))
        self._run("kill-window", "-t", f"={session}:=setup")
        return Pane(pane, session, int(pid), dead=False, unit=unit, config=config)

    def _run_on_a_server(self, command: str, *words: str) -> list[str]:
        """The server ends with its last session: one that is just going is waited for, and another one started."""
        for _ in range(TRIES):
            try:
                return self._run(command, *words)
            except TmuxError as failed:
                if not any(sign in str(failed) for sign in GOING):
                    raise
                time.sleep(TRY_PAUSE)
        return self._run(command, *words)

    def last_words(self, pane: Pane, lines: int) -> list[str]:
        """The last lines on a pane's screen, those that have scrolled away included, without tmux's own."""
        shown = self._run("capture-pane", "-p", "-J", "-t", pane.id, "-S", f"-{lines + HEIGHT}")
        words = [line.rstrip() for line in shown if not line.startswith("Pane is dead")]
        while words and not words[-1]:
            words.pop()
        return words[-lines:]

    def reap(self) -> None:
        """Make tmux look after its dead children: it sometimes misses one, and does not know its exit status then."""
        try:
            self._run("run-shell", "true")
        except TmuxError as failed:
            if not any(sign in str(failed) for sign in NO_SERVER):
                raise

    def kill(self, session: str) -> None:
        """End exactly this session. One that is gone already is no error."""
        try:
            self._run("kill-session", "-t", f"={session}")
        except TmuxError as failed:
            if "can't find session" not in str(failed) and not any(sign in str(failed) for sign in NO_SERVER):
                raise

    def _run(self, command: str, *words: str) -> list[str]:
        from libtmux import Server, exc  # a gateway needs it when something has crashed, and not to start

        try:
            done = Server(socket_name="default").cmd(command, *words)
        except exc.TmuxCommandNotFound:
            raise TmuxMissing from None
        if done.returncode or done.stderr:
            raise TmuxError(f"tmux {command}: {' '.join(done.stderr) or f'exit status {done.returncode}'}")
        return list(done.stdout)


def _pane(line: str) -> Pane:
    dead, status, signal, pid, pane, attached, created, unit, config, session = line.split(SEPARATOR, len(FIELDS) - 1)
    ended = f"signal {signal}" if signal else f"exit status {status}" if status else ""
    return Pane(
        id=pane,
        session=session,
        pid=int(pid or 0),
        dead=dead == "1",
        status=ended,
        unit=unquote(unit),
        config=unquote(config),
        attached=attached not in ("", "0"),
        created=int(created or 0),
    )
