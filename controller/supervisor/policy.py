"""When a process that ended is started again, and when one that runs is taken for hung. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from controller.fleet.state import AWAKE, State

FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0
"""Seconds between restarts: doubled from the first to the last."""

BUDGET = 8
"""Restarts in a row. After that somebody has to look."""

HEALTHY_SECONDS = 300.0
"""Up for so long, it was well: what happens then is not of the same row."""

SILENT_SECONDS = 180.0
"""With requests and without a sign of work, beyond the time after which its circuit is open."""

UNHEALTHY_SECONDS = 300.0
"""Without a healthy answer, though its process runs."""


@dataclass(frozen=True, slots=True)
class Row:
    """Failures in a row."""

    failures: int = 0

    def one_more(self, healthy_seconds: float) -> Row:
        """``healthy_seconds``: for how long it was up before it failed."""
        return Row(1 if healthy_seconds >= HEALTHY_SECONDS else self.failures + 1)

    @property
    def pause(self) -> float | None:
        """Seconds until it is started again; None: it is not."""
        if self.failures > BUDGET:
            return None
        return float(min(LAST_PAUSE, FIRST_PAUSE * 2 ** (self.failures - 1)))


class Course:
    """What a process went through. ``due``: when it is started again, if it is. ``now`` is on any clock, in seconds.

    ``in_vain``: failures in a row between which it was never seen up.
    """

    def __init__(self) -> None:
        self.row = Row()
        self.in_vain = 0
        self.due: float | None = None
        self._up_since: float | None = None
        self._up_until = 0.0

    @property
    def given_up(self) -> bool:
        return self.row.failures > 0 and self.row.pause is None

    def see_up(self, now: float) -> None:
        self.due = None
        self._up_until = now
        if self.given_up:  # somebody else has started it
            self.row = Row()
        if self._up_since is None:
            self._up_since = now

    def fail(self, problem: str, now: float) -> str:
        """It has failed once more: it is due after a pause, or given up. Returns what there is to tell of it."""
        self.row = self.row.one_more(0.0 if self._up_since is None else self._up_until - self._up_since)
        self.in_vain = self.in_vain + 1 if self._up_since is None else 1
        self._up_since = None
        pause = self.row.pause
        self.due = None if pause is None else now + pause
        return f"{BUDGET} restarts in a row have not helped: {problem}" if self.given_up else problem


@dataclass(frozen=True, slots=True)
class Signs:
    """Of an instance whose process runs, in seconds: in its state, since its last answer to a look, and silent."""

    state: State
    in_state: float
    unanswered: float
    silent: float


def hangs(signs: Signs, ready_timeout: float) -> str | None:
    """Why it is to be replaced; None when it is not."""
    if signs.state is State.STARTING and signs.in_state > ready_timeout:
        return f"it was not ready after {ready_timeout:g} s"
    if signs.state is State.FAILED and signs.in_state > UNHEALTHY_SECONDS:
        return f"its process runs, but gave no healthy answer for {UNHEALTHY_SECONDS:g} s"
    if signs.state in (State.READY, State.ASLEEP) and signs.unanswered > UNHEALTHY_SECONDS:
        return f"it has answered nothing for {UNHEALTHY_SECONDS:g} s"
    if signs.state in AWAKE and signs.silent > SILENT_SECONDS:
        return f"it has requests and did nothing for {SILENT_SECONDS:g} s and more"
    return None
