"""What a process and its descendants used: CPU and memory from /proc, instructions where ``perf`` may count them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
ATTACH_SECONDS = 0.3
"""More than ``perf`` takes until it counts; it does not say when it does."""

EVENTS = {"instructions:u": "user", "instructions:k": "kernel"}
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Instructions:
    user: float
    kernel: float

    @property
    def total(self) -> float:
        return self.user + self.kernel

    def less(self, other: Instructions, times: float) -> Instructions:
        return Instructions(max(0.0, self.user - other.user * times), max(0.0, self.kernel - other.kernel * times))

    def per(self, units: int) -> Instructions:
        return Instructions(self.user / max(1, units), self.kernel / max(1, units))


def parents(proc: Path = PROC) -> dict[int, int]:
    """Each process's parent."""
    found = {}
    for folder in proc.iterdir():
        if folder.name.isdigit() and (fields := _stat(folder)) is not None:
            found[int(folder.name)] = int(fields[1])
    return found


def tree(root: int, parent_of: dict[int, int]) -> set[int]:
    """``root`` and all that descend from it."""
    found = {root}
    grown = True
    while grown:
        more = {child for child, parent in parent_of.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def cpu_seconds(root: int, proc: Path = PROC) -> float:
    """User and system time of the tree, in seconds: to the nanosecond where the kernel keeps that, else to its tick."""
    return sum(_cpu_of(proc / str(pid)) for pid in tree(root, parents(proc)))


def _cpu_of(folder: Path) -> float:
    try:
        return sum(int(file.read_text().split()[0]) for file in folder.glob("task/*/schedstat")) / 1e9 or _ticks(folder)
    except OSError:
        return _ticks(folder)  # a thread has ended meanwhile


def _ticks(folder: Path) -> float:
    fields = _stat(folder)
    return (int(fields[11]) + int(fields[12])) / TICK if fields is not None else 0.0


def resident_bytes(root: int, proc: Path = PROC) -> int:
    """Memory of the tree's own, shared pages counted in each."""
    total = 0
    for pid in tree(root, parents(proc)):
        try:
            pages = (proc / str(pid) / "statm").read_text().split()[1]
        except OSError:
            continue  # it has ended meanwhile
        total += int(pages) * os.sysconf("SC_PAGE_SIZE")
    return total


def _stat(folder: Path) -> list[str] | None:
    """What follows the process's name, which may itself hold blanks and brackets."""
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


class Counter:
    """``perf stat`` attached to a tree from ``start`` to ``stop``; that takes about half a second besides."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, root: int) -> None:
        pids = ",".join(map(str, sorted(tree(root, parents()))))
        words = ["perf", "stat", "-x", ";", "-o", str(self._file), "-e", ",".join(EVENTS), "-p", pids]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(ATTACH_SECONDS)

    def stop(self) -> Instructions | None:
        """None when they were not counted, as in most containers."""
        if self._process is None:
            return None
        self._process.send_signal(signal.SIGINT)
        self._process.wait(10)
        self._process = None
        try:
            return parse(self._file.read_text().splitlines())
        except OSError:
            return None


def parse(lines: Iterable[str]) -> Instructions | None:
    """Read what ``perf stat -x ';'`` wrote."""
    found = {}
    for line in lines:
        fields = line.split(";")
        if len(fields) > 2 and fields[2] in EVENTS and fields[0].replace(".", "").isdigit():
            found[EVENTS[fields[2]]] = float(fields[0])
    return Instructions(found["user"], found["kernel"]) if len(found) == len(EVENTS) else None


def can_count(folder: Path) -> bool:
    """Whether ``perf`` is there and may count a process of ours."""
    if shutil.which("perf") is None:
        return False
    counter = Counter(folder / "perf-probe.txt")
    counter.start(os.getpid())
    return counter.stop() is not None
