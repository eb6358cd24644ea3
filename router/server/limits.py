"""What a client may send and how long it may take: the limits of one connection, and which of them is passed.

Nothing here is asked per request. Once a second every connection is looked at: as long as it makes progress, or it is
the gateway's turn, it may go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto


class Stage(Enum):
    """What a connection is waiting for."""

    IDLE = auto()
    """The next request."""
    LEAVING = auto()
    """The next request, which will be the last: another gateway has taken over."""
    HEAD = auto()
    """The rest of a request's head, or the first byte of all."""
    BODY = auto()
    """More of a request's body."""
    REST = auto()
    """The rest of a body whose request has been answered already."""
    WORKING = auto()
    """The gateway, or its engine: no limit here."""
    WRITING = auto()
    """The client, to read what has been written."""
    LINGERING = auto()
    """The client, to read the last answer and close."""


SECONDS: Mapping[Stage, float] = {
    Stage.IDLE: 75.0,  # longer than clients and proxies usually keep a connection (60 s): they are to close it, not we
    Stage.LEAVING: 3.0,  # who keeps a connection busy is told to close it; who does not may well find it closed
    Stage.HEAD: 30.0,
    Stage.BODY: 30.0,  # between two pieces; the whole of it may take as long as it needs
    Stage.REST: 10.0,
    Stage.WORKING: float("inf"),
    Stage.WRITING: 120.0,
    Stage.LINGERING: 2.0,
}
"""How long a connection may be in a stage without progress."""

LINGER_BYTES = 1_048_576
"""How much is still read of a client that has been told that its connection ends."""

MOST_AHEAD = 8
"""Requests that wait behind the one that is being answered before no more are read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``url`` and ``head``: bytes. ``connections``: how many clients at a time; None is as many as come."""

    url: int = 8_192
    head: int = 65_536
    headers: int = 100
    connections: int | None = None
    seconds: Mapping[Stage, float] = field(default_factory=lambda: SECONDS)


DEFAULT = Limits()


def spare(connections: int) -> int:
    """How many clients more than may be connected are told so and waited for; any more are told and closed at once."""
    return min(64, connections // 8)


class Patience:
    """How long a connection has been in its stage without progress."""

    __slots__ = ("_progress", "_since")

    def __init__(self) -> None:
        self._progress: tuple[Stage, int] | None = None
        self._since = 0.0

    def is_over(self, stage: Stage, progress: int, now: float, limits: Limits) -> bool:
        """``progress``: any number that changes when there has been some."""
        seen = (stage, progress)
        if seen != self._progress:
            self._progress, self._since = seen, now
            return False
        return now - self._since >= limits.seconds[stage]
