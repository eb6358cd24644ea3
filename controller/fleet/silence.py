"""A hung engine that still calls itself healthy is found by its silence. Pure but for what it remembers."""

from __future__ import annotations

HUNG_SECONDS = 30.0
"""Without any sign of work, by an engine that tells how its work goes on."""

MUTE_SECONDS = 120.0
"""Without an answer begun or ended, by one that does not: a long answer in one piece looks the same."""


LONGEST_SECONDS = HUNG_SECONDS / 2
"""Between two looks, however long they are apart: the gateway itself may have been stopped meanwhile."""


class Silence:
    """Between two looks: has it done anything?

    Each look that finds it busy counts the time since the look before, an idle one counts nothing, and all is added up
    until it does something: its clients may well leave, one after the other, before any of them has waited long enough.
    """

    def __init__(self) -> None:
        self._answers = -1
        self._pulse: float | None = None
        self._spent = 0.0
        self._looked: float | None = None

    def suspects(self, in_flight: int, answers: int, now: float) -> bool:
        """Whether to take its pulse. ``answers``: a count of answers begun and ended."""
        if answers != self._answers:
            self._answers, self._pulse = answers, None
            self._start()
            return False
        if not in_flight:
            self._looked = now
        return in_flight > 0

    def lasts(self, pulse: float | None, now: float) -> float:
        """Seconds of silence so far, of those that are too many (1 is as long as may be). ``pulse``: None, not told."""
        if pulse is not None and pulse != self._pulse:
            self._pulse = pulse
            self._start()
        if self._looked is not None:
            self._spent += min(now - self._looked, LONGEST_SECONDS)
        self._looked = now
        return self._spent / (MUTE_SECONDS if pulse is None else HUNG_SECONDS)

    def _start(self) -> None:
        self._spent, self._looked = 0.0, None
