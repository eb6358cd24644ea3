"""Who starts and ends engine processes for the fleet."""

from __future__ import annotations

from typing import Protocol

from controller.fleet.errors import NotPossible


class Keeper(Protocol):
    """Raises ``TransitionRefused``."""

    async def start(self, name: str) -> None:
        """Launch its process. Whether it is ready is found out by looking at it."""

    async def stop(self, name: str) -> None:
        """End its process and its children; they are gone when this returns."""

    def can(self, name: str) -> bool:
        """Whether it is ours to start and to end."""


class NoKeeper:
    """Nobody: engines run for themselves."""

    async def start(self, name: str) -> None:
        raise NotPossible(f"{name!r} is not ours to start")

    async def stop(self, name: str) -> None:
        raise NotPossible(f"{name!r} is not ours to stop")

    def can(self, name: str) -> bool:
        return False
