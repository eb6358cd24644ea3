"""A unit's session: how it is opened and how it is closed, with every process in it. Blocks."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil

from controller.launch import logs, process_tree
from controller.launch.environment import marker
from controller.launch.handover import Handover
from controller.launch.preflight import obstacle
from controller.launch.tmux import Pane, Tmux
from controller.launch.unit import ROUTER, Unit
from runtime.processes import identity
from state.launches import Launch

FLUSH_SECONDS = 0.1
"""tmux throws away what it has not yet passed on to the log when a session ends; an engine's farewell is worth this."""


class CannotStart(Exception):
    """Known before anything was started; the message says why."""


def open_session(tmux: Tmux, unit: Unit, before: Pane | None, record: Launch | None, stop_seconds: float) -> Pane:
    """Start ``unit``; ``before`` is its dead pane, if there is one. What its last run left behind goes first."""
    left = process_tree.stop(leader(before) or last_leader(record), unit.marker, stop_seconds)
    if left:
        raise CannotStart(f"processes of its last run cannot be ended: {', '.join(map(str, left))}")
    problem = obstacle(unit)
    if problem is not None:
        raise CannotStart(problem)
    if before is not None:
        tmux.kill(before.session)
    logs.rotate(unit.log)
    with Handover(guarded=unit.service is ROUTER) as handover:  # everything else is seen to by the gateway
        pane = tmux.create(
            unit.session, handover.argv, folder=unit.folder, log=unit.log, unit=unit.name, config=unit.config
        )
        handover.give(unit.argv, unit.environment, unit.folder, lambda: identity(pane.pid) is not None)
    return pane


def close_session(tmux: Tmux, panes: Sequence[Pane], seconds: float) -> list[int]:
    """End the session that ``panes`` are in. Returns the pids of processes that could not be ended.

    In a session of ours only the engine is waited for; shells that the user split off go with the session.
    """
    ours = [pane for pane in panes if pane.config]
    left: list[int] = []
    for pane in ours or panes:
        mark = marker(pane.config, pane.unit) if pane.config else None
        left += process_tree.stop(leader(pane), mark, seconds)
    time.sleep(FLUSH_SECONDS)
    for session in {pane.session for pane in panes}:
        tmux.kill(session)
    return left


def last_leader(record: Launch | None) -> int | None:
    """The same for a unit whose pane is gone: workers that hide their environment are found by its session alone."""
    if record is None:
        return None
    pid = int(record.process.partition(":")[0])
    return None if psutil.pid_exists(pid) and identity(pid) != record.process else pid


def leader(pane: Pane | None) -> int | None:
    """The pid whose session the pane's processes are in; None when that pid is another process's by now."""
    if pane is None or (pane.dead and psutil.pid_exists(pane.pid)):
        return None
    return pane.pid
