"""Time in which the gateway itself stood still, stopped by a signal or with its machine: no engine's fault."""

from __future__ import annotations

from collections import deque

NOTICED_SECONDS = 3.0
"""Between two beats; shorter ones are load."""

KEPT = 100
"""Pauses that are remembered."""


class Standstill:
    """``now`` and moments: seconds, monotonic. It is to be told about once a second that time goes on."""

    def __init__(self, now: float) -> None:
        self._last = now
        self._pauses: deque[tuple[float, float]] = deque(maxlen=KEPT)

    def beat(self, now: float) -> None:
        if now - self._last > NOTICED_SECONDS:
            self._pauses.append((self._last, now))
        self._last = now

    def seconds(self, since: float, now: float) -> float:
        """From ``since`` to ``now``, without the time in which nothing went on here."""
        return now - since - sum(until - max(began, since) for began, until in self._pauses if until > since)
