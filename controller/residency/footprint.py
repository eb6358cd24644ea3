"""What one instance takes of each place: awake, asleep at each level, stopped. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.residency.memory import NOTHING, Memory, larger


@dataclass(frozen=True, slots=True)
class Footprint:
    """``asleep``: by level. A level that is not in it cannot be slept at."""

    awake: Memory
    asleep: Mapping[int, Memory] = field(default_factory=dict)

    def at(self, level: int) -> Memory:
        """Asleep at ``level``; of one that nobody knows (0) the most it can be."""
        if level in self.asleep:
            return self.asleep[level]
        most: Memory = NOTHING
        for amount in self.asleep.values():
            most = larger(most, amount)
        return most
