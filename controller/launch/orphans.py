"""Processes of this file's launches that are in no session of it: they may hold memory, and nobody would see it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from controller.launch.environment import MARKER, marker
from controller.launch.tmux import Pane
from state.launches import Launch


@dataclass(frozen=True, slots=True)
class Found:
    """A process with our mark. ``size``: resident bytes. ``parent``: its pid."""

    pid: int
    unit: str
    size: int
    parent: int


@dataclass(frozen=True, slots=True)
class Orphan:
    """``leads``: what was started for the unit is among them: it may well be serving."""

    unit: str
    pids: tuple[int, ...]
    size: int
    known: bool
    leads: bool

    def __str__(self) -> str:
        which = ", ".join(map(str, self.pids))
        if not self.known:
            why = "the YAML does not have it any more"
        else:
            why = "its tmux session is gone" if self.leads else "left behind by its last run"
        return f"{self.unit}: {why}, but it runs and holds {self.size / 2**20:.0f} MiB (pid {which})"


def find(owner: str) -> list[Found]:
    """All processes that carry a mark of the file ``owner``. Blocks."""
    prefix, found = marker(owner, ""), []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARKER, "")
            if mark.startswith(prefix) and process.status() != psutil.STATUS_ZOMBIE:
                unit, size = mark.removeprefix(prefix), process.memory_info().rss
                found.append(Found(process.pid, unit, size, process.ppid()))
        except (psutil.Error, OSError):
            continue
    return found


def judge(
    found: Iterable[Found], panes: Sequence[Pane], known: Collection[str], records: Mapping[str, Launch]
) -> list[Orphan]:
    """``panes``: those of this file. ``known``: the units that it has."""
    housed = {pane.unit for pane in panes if not pane.dead}
    groups: dict[str, list[Found]] = {}
    for one in found:
        if one.unit not in housed:
            groups.setdefault(one.unit, []).append(one)
    return [_orphan(unit, group, unit in known, records.get(unit)) for unit, group in sorted(groups.items())]


def _orphan(unit: str, group: Sequence[Found], known: bool, record: Launch | None) -> Orphan:
    pids = tuple(sorted(one.pid for one in group))
    leader = int(record.process.partition(":")[0]) if record is not None else None
    # Below the pane's program; started by a version of this one that had none to stay, it was that itself.
    leads = any(leader in (one.parent, one.pid) for one in group)
    return Orphan(unit, pids, sum(one.size for one in group), known, leads)
