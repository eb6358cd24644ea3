"""What is wanted of an instance's process: that it runs, or stays stopped until somebody starts it by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from state.database import reading, writing
from state.tables import desired_states


class Wanted(StrEnum):
    RUNNING = "running"
    """It may run: what has crashed is started again, what sleeps too deep for a process by its next request."""
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class DesiredState:
    """``at``: epoch seconds. ``by``: who said so."""

    instance: str
    wanted: Wanted
    at: float
    by: str


class DesiredStates:
    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def all(self) -> Mapping[str, DesiredState]:
        async with reading(self._database) as connection:
            rows = (await connection.execute(select(desired_states))).mappings()
            found = [DesiredState(**{**row, "wanted": Wanted(row["wanted"])}) for row in rows]
        return {one.instance: one for one in found}

    async def put(self, *states: DesiredState) -> None:
        """Write them in place of the instances' old ones, all or none."""
        async with writing(self._database) as connection:
            for one in states:
                await connection.execute(delete(desired_states).where(desired_states.c.instance == one.instance))
                await connection.execute(insert(desired_states).values(**asdict(one)))

    async def clear(self, instance: str) -> None:
        async with writing(self._database) as connection:
            await connection.execute(delete(desired_states).where(desired_states.c.instance == instance))
