"""What happened to the fleet: what, when, why, and who asked. Append-only; whoever listens is told at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

KEPT = 1000
"""The last events, in memory."""


class Happened(StrEnum):
    WAKE_BEGAN = "wake_began"
    WOKEN = "woken"
    WAKE_FAILED = "wake_failed"
    SLEPT = "slept"
    SLEEP_CALLED_OFF = "sleep_called_off"
    SLEEP_FAILED = "sleep_failed"
    EVICTED = "evicted"
    """Told to leave for another model."""
    REFUSED = "refused"
    """There can never be room for it."""
    WAITS = "waits"
    """For room. With ``seconds``: for so long already, as another gateway takes over."""
    STARTED = "started"
    STOPPED = "stopped"
    CRASHED = "crashed"
    """Its process has ended by itself."""
    HUNG = "hung"
    """Its process does nothing any more, and is replaced."""
    GIVEN_UP = "given_up"
    """It failed again and again, and is not started any more."""
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Event:
    """``time``: epoch seconds. ``cause``: why, or who asked. ``seconds``: how long it took. ``level``: of sleep."""

    number: int
    time: float
    what: Happened
    model: str
    instance: str
    cause: str = ""
    detail: str = ""
    seconds: float | None = None
    level: int | None = None


Listener = Callable[[Event], None]


class Journal:
    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self.recent: deque[Event] = deque(maxlen=KEPT)
        self.listeners: list[Listener] = []
        self.last_number = 0
        self._wall = wall

    @property
    def next_number(self) -> int:
        return self.last_number + 1

    def go_on_after(self, number: int) -> None:
        """Before the first event: numbers go on where an earlier journal ended."""
        self.last_number = number

    def tell(
        self,
        what: Happened,
        model: str,
        instance: str = "",
        *,
        cause: str = "",
        detail: str = "",
        seconds: float | None = None,
        level: int | None = None,
    ) -> None:
        self.last_number += 1
        event = Event(self.last_number, self._wall(), what, model, instance, cause, detail, seconds, level)
        self.recent.append(event)
        for listener in list(self.listeners):
            listener(event)
