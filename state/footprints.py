"""What engines were measured to take of which memory, so that it is known before they are measured again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from state.database import reading, writing
from state.tables import footprints


@dataclass(frozen=True, slots=True)
class Measurement:
    """Bytes by place: ``awake``, and ``asleep`` by level. ``digest``: of what the engine is started with.

    ``measured_at``: epoch seconds.
    """

    instance: str
    digest: str
    awake: Mapping[str, int]
    asleep: Mapping[int, Mapping[str, int]]
    measured_at: float


class Footprints:
    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def all(self) -> Mapping[str, Measurement]:
        async with reading(self._database) as connection:
            rows = (await connection.execute(select(footprints))).mappings().all()
        return {row["instance"]: Measurement(**{**row, "asleep": _levels(row["asleep"])}) for row in rows}

    async def put(self, measurement: Measurement) -> None:
        """In place of the instance's old one."""
        asleep = {str(level): dict(amount) for level, amount in measurement.asleep.items()}
        async with writing(self._database) as connection:
            await connection.execute(delete(footprints).where(footprints.c.instance == measurement.instance))
            await connection.execute(
                insert(footprints).values(
                    instance=measurement.instance,
                    digest=measurement.digest,
                    awake=dict(measurement.awake),
                    asleep=asleep,
                    measured_at=measurement.measured_at,
                )
            )


def _levels(asleep: Mapping[str, Mapping[str, int]]) -> dict[int, Mapping[str, int]]:
    """JSON's names are text."""
    return {int(level): amount for level, amount in asleep.items()}
