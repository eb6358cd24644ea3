"""What the launcher started: enough to tell whether it still runs and whether the YAML has changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from state.database import reading, writing
from state.tables import launches


@dataclass(frozen=True, slots=True)
class Occupant:
    """An engine, as far as it must be known where no YAML tells. Bytes by place: ``awake``, and ``asleep`` by level."""

    model: str
    kind: str
    url: str
    awake: Mapping[str, int]
    asleep: Mapping[int, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Launch:
    """One started session. ``environment``: name -> digest of the value, for values may be secret.

    ``process``: pid and start time of the pane's process. ``launched_at``: epoch seconds. ``occupant``: None of what is
    no engine, or was launched before such were kept.
    """

    instance: str
    session: str
    process: str
    argv: list[str]
    environment: dict[str, str]
    launched_at: float
    occupant: Occupant | None = None


class Launches:
    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def all(self) -> Mapping[str, Launch]:
        async with reading(self._database) as connection:
            rows = (await connection.execute(select(launches))).mappings()
            return {row["instance"]: Launch(**{**row, "occupant": _occupant(row["occupant"])}) for row in rows}

    async def put(self, launch: Launch) -> None:
        async with writing(self._database) as connection:
            await connection.execute(delete(launches).where(launches.c.instance == launch.instance))
            await connection.execute(insert(launches).values(**asdict(launch)))

    async def clear(self, instance: str) -> None:
        async with writing(self._database) as connection:
            await connection.execute(delete(launches).where(launches.c.instance == instance))


def _occupant(kept: Mapping[str, Any] | None) -> Occupant | None:
    """JSON's names are text."""
    if kept is None:
        return None
    return Occupant(**{**kept, "asleep": {int(level): amount for level, amount in kept["asleep"].items()}})
