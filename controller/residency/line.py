"""The models that wait for room, first come first, also if they have come by way of another gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from controller.fleet.instance import Instance


@dataclass
class Waiting:
    """``among``: the replicas that would do. ``since``: on the fleet's clock.

    ``why``: what it waits for now, ``until`` when at the latest, if that is known. ``refusal``: why it can never be.
    ``outcome``: of a wake of just one instance, and how many await it (``askers``).
    """

    model: str
    among: tuple[Instance, ...]
    since: float
    cause: str
    why: str = ""
    until: float = 0.0
    refusal: str = ""
    outcome: asyncio.Future[None] | None = None
    askers: int = 0


class Line:
    def __init__(self) -> None:
        self._entries: dict[tuple[object, ...], Waiting] = {}

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def entries(self) -> tuple[Waiting, ...]:
        return tuple(self._entries.values())

    def join(self, entry: Waiting) -> Waiting:
        """Returns who waits for the same already, or else ``entry``."""
        key = (entry.model, entry.cause, *entry.among)
        if key not in self._entries:
            entries = {**self._entries, key: entry}
            self._entries = dict(sorted(entries.items(), key=lambda one: one[1].since))
        return self._entries[key]

    def leave(self, gone: Waiting) -> None:
        self._entries = {key: one for key, one in self._entries.items() if one is not gone}

    def forget(self, model: str, cause: str) -> None:
        kept = {key: one for key, one in self._entries.items() if one.model != model or one.cause != cause}
        if len(kept) != len(self._entries):
            self._entries = kept

    def keep(self, there: Mapping[str, Instance]) -> None:
        """Others have left, whoever has their name now. Who waits for just one of those is told by somebody else."""
        for entry in self.entries:
            among = tuple(one for one in entry.among if there.get(one.name) is one)
            if entry.outcome is None and among != entry.among:
                entry.among = among
                if not among:
                    self.leave(entry)
