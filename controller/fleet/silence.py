"""A hung engine that still calls itself healthy is found by its silence. Pure but for what it remembers."""

from __future__ import annotations

HUNG_SECONDS = 30.0
"""Without any sign of work, by an engine that tells how its work goes on."""

MUTE_SECONDS = 120.0
"""Without an answer begun or ended, by one that does not: a long answer in one piece looks the same."""


class Silence:
    """Between two looks: has it done anything?"""

    def __init__(self) -> None:
        self._answers = -1
        self._pulse: float | None = None
        self._since: float | None = None

    def suspects(self, in_flight: int, answers: int) -> bool:
        """Whether to take its pulse. ``answers``: a count of answers begun and ended."""
        if in_flight and answers == self._answers:
            return True
        self._answers, self._since, self._pulse = answers, None, None
        return False

    def lasts(self, pulse: float | None, now: float) -> float:
        """Seconds of silence so far, of those that are too many (1 is as long as may be). ``pulse``: None, not told."""
        if self._since is None or (pulse is not None and pulse != self._pulse):
            self._since, self._pulse = now, pulse
        return (now - self._since) / (MUTE_SECONDS if pulse is None else HUNG_SECONDS)
