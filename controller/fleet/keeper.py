"""Who starts and ends engine processes for the fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from controller.fleet.errors import NotPossible
from controller.fleet.state import Hold


@dataclass(frozen=True, slots=True)
class Rest:
    """Why no process of it runs, where that is as it should be."""

    cause: str
    hold: Hold = Hold.NONE


class Keeper(Protocol):
    """Raises ``TransitionRefused``."""

    async def start(self, name: str) -> None:
        """Launch its process. Whether it is ready is found out by looking at it."""

    async def stop(self, name: str) -> None:
        """End its process and its children; they are gone when this returns."""

    def can(self, name: str) -> bool:
        """Whether it is ours to start and to end."""

    async def rest(self, name: str) -> Rest | None:
        """Asked of one whose process is not there; None when it should be."""


class NoKeeper:
    """Nobody: engines run for themselves."""

    async def start(self, name: str) -> None:
        raise NotPossible(f"{name!r} is not ours to start")

    async def stop(self, name: str) -> None:
        raise NotPossible(f"{name!r} is not ours to stop")

    def can(self, name: str) -> bool:
        return False

    async def rest(self, name: str) -> Rest | None:
        return None
