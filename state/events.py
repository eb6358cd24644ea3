"""What happened to the fleet, by number. Rows are only added; the oldest go when there are too many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from state.database import reading, writing
from state.tables import events

KEPT = 100_000

Row = Mapping[str, Any]
"""Column -> value."""


class Events:
    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def last_number(self) -> int:
        """0 when there is none."""
        async with reading(self._database) as connection:
            return int((await connection.execute(select(func.max(events.c.number)))).scalar() or 0)

    async def add(self, rows: Sequence[Row]) -> None:
        async with writing(self._database) as connection:
            await connection.execute(insert(events), [dict(row) for row in rows])

    async def prune(self) -> None:
        """Forget all but the last 100,000."""
        last = await self.last_number()
        async with writing(self._database) as connection:
            await connection.execute(delete(events).where(events.c.number <= last - KEPT))

    async def between(self, after: int, before: int, limit: int, *, newest: bool) -> Sequence[Row]:
        """Oldest first, numbers ``after`` < n < ``before``. ``newest``: the last ``limit`` of them, else the first."""
        order = events.c.number.desc() if newest else events.c.number
        wanted = select(events).where(events.c.number > after, events.c.number < before).order_by(order).limit(limit)
        async with reading(self._database) as connection:
            rows = [dict(row) for row in (await connection.execute(wanted)).mappings()]
        return rows[::-1] if newest else rows

    async def last(self, what: str, limit: int) -> Sequence[Row]:
        """The last ``limit`` of which it says ``what``, oldest first."""
        wanted = select(events).where(events.c.what == what).order_by(events.c.number.desc()).limit(limit)
        async with reading(self._database) as connection:
            return [dict(row) for row in (await connection.execute(wanted)).mappings()][::-1]
