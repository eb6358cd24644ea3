"""Whether an instance that calls itself healthy is to be trusted with requests: a circuit breaker. Pure.

closed → open            failures in a row, or silence
open → half open         the pause is over, and the instance still looks healthy
half open → trying       one request is on its way to find out
trying → closed, open    it was answered, or it failed; half open again when its client left first
open → closed            it was asked all the same, being the last hope, and something was answered
"""

from __future__ import annotations

from enum import StrEnum

FAILURES = 5
"""In a row; with fewer, one request that breaks any engine could close them all."""

FIRST_PAUSE, LAST_PAUSE = 5.0, 60.0
"""Seconds until the next trial: doubled from the first to the last."""


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    TRYING = "trying"


class Breaker:
    """One instance's. ``now`` is on any clock, in seconds. Each method tells whether the circuit has changed."""

    def __init__(self) -> None:
        self.circuit = Circuit.CLOSED
        self.cause = ""
        self.failures = 0
        self._until = 0.0
        self._pause = FIRST_PAUSE
        self._asked = False

    @property
    def admits(self) -> bool:
        """Whether a request may go there while others could serve it too."""
        return self.circuit in (Circuit.CLOSED, Circuit.HALF_OPEN)

    @property
    def troubled(self) -> bool:
        return self.failures > 0 or self.circuit is not Circuit.CLOSED

    def failed(self, now: float, cause: str) -> bool:
        self.failures += 1
        if self.circuit is Circuit.OPEN or (self.circuit is Circuit.CLOSED and self.failures < FAILURES):
            return False
        return self.trip(now, cause)

    def trip(self, now: float, cause: str) -> bool:
        """Open at once: what was seen leaves no doubt."""
        self._until, self.cause = now + self._pause, cause
        if self.circuit is Circuit.OPEN:
            return False
        self._pause = min(LAST_PAUSE, 2 * self._pause)
        self._asked = False
        return self._move(Circuit.OPEN)

    def rested(self, now: float) -> bool:
        return self.circuit is Circuit.OPEN and now >= self._until and self._move(Circuit.HALF_OPEN)

    def tried(self) -> bool:
        """A request goes there; even while it is open, when it is so everywhere."""
        self._asked = self._asked or self.circuit is Circuit.OPEN
        return self.circuit is Circuit.HALF_OPEN and self._move(Circuit.TRYING)

    def untried(self) -> bool:
        """It came back without news: its client left."""
        return self.circuit is Circuit.TRYING and self._move(Circuit.HALF_OPEN)

    def began(self) -> bool:
        """An answer has begun. That ends a trial; the next failure opens the circuit again."""
        if self.circuit is not Circuit.TRYING:
            return False
        self.failures = FAILURES - 1
        return self._move(Circuit.CLOSED)

    def succeeded(self) -> bool:
        """An answer came whole. One that was under way when the circuit opened says nothing of what is to come."""
        if self.circuit is Circuit.OPEN and not self._asked:
            return False
        self.failures, self._pause = 0, FIRST_PAUSE
        return self.circuit is not Circuit.CLOSED and self._move(Circuit.CLOSED)

    def _move(self, circuit: Circuit) -> bool:
        self.circuit = circuit
        return True
