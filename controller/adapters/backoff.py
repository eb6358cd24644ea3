"""When an instance that would not load an adapter is asked again. Pure; ``now`` is wall time, for it is kept."""

from __future__ import annotations

from dataclasses import dataclass

DELAYS = (5.0, 10.0, 20.0, 40.0, 80.0)
"""Seconds before each retry, counted from the try before it. After the last one an instance is used up."""


@dataclass(frozen=True, slots=True)
class Tries:
    """What has come of an adapter on one instance. ``process``: the engine's, as far as it is known."""

    failures: int = 0
    next_at: float = 0.0
    problem: str = ""
    process: str | None = None

    @property
    def used_up(self) -> bool:
        return self.failures > len(DELAYS)

    def due(self, now: float) -> bool:
        """A wait longer than any there is comes of a clock that was set back."""
        return not self.used_up and not 0 < self.next_at - now <= DELAYS[-1]


FRESH = Tries()


def failed(before: Tries, now: float, problem: str, process: str | None, *, retriable: bool) -> Tries:
    """One more failure; one that no repetition can mend uses the instance up at once."""
    failures = before.failures + 1 if retriable else len(DELAYS) + 1
    delay = DELAYS[failures - 1] if failures <= len(DELAYS) else 0.0
    return Tries(failures, now + delay, problem, process)
