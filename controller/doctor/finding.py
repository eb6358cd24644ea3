"""What the doctor finds, and what he knows when he judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Level(Enum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """``cure``: how to mend it; empty where nothing is to be mended."""

    level: Level
    about: str
    what: str
    cure: str = ""

    def __str__(self) -> str:
        cure = f"\n         {self.cure}" if self.cure else ""
        return f"{self.level.value:8} {self.about}: {self.what}{cure}"


@dataclass(frozen=True, slots=True)
class Program:
    """What is launched. ``holder``: who listens at its port, if it is not this very one.

    ``missing``: why it cannot run. ``version``: of its engine's package, where it has one.
    """

    name: str
    port: int
    holder: str | None = None
    missing: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Sizes in bytes. ``gpus``: number -> memory, empty without a driver. ``files``: how many may be open at once."""

    tmux: str | None
    gpus: Mapping[int, int]
    memory: int
    log_space: int
    files: int
    programs: tuple[Program, ...] = ()
    state_problem: str | None = None
    orphans: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    open: tuple[str, ...] = field(default=())
