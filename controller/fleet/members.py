"""The instances that have an adapter, as they are at the moment one looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from controller.fleet.errors import NotLoaded
from controller.fleet.instance import Instance

RETRY_SECONDS = 2.0


@dataclass
class Roll:
    """``problem``: why nobody is on it; empty when somebody is about to be."""

    on_it: Mapping[Instance, str | None] = field(default_factory=dict)
    problem: str = ""


class Members(Sequence[Instance]):
    """A request that waits holds on to this: it sees who joins, and is never given one that has left."""

    def __init__(self, roll: Roll, gone: frozenset[Instance] = frozenset()) -> None:
        self._roll = roll
        self._gone = gone

    def without(self, gone: Instance) -> Members:
        return Members(self._roll, self._gone | {gone})

    def check(self) -> None:
        """Raises ``NotLoaded`` when nobody has it and nobody is about to."""
        if self._roll.problem and not self._roll.on_it:
            raise NotLoaded(self._roll.problem, retry_after=RETRY_SECONDS)

    @property
    def _now(self) -> list[Instance]:
        return [instance for instance in self._roll.on_it if instance not in self._gone]

    def __len__(self) -> int:
        return len(self._now)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._now)

    @overload
    def __getitem__(self, index: int) -> Instance: ...

    @overload
    def __getitem__(self, index: slice) -> list[Instance]: ...

    def __getitem__(self, index: Any) -> Any:
        return self._now[index]
