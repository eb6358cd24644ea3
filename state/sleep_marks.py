"""Marks of who sleeps, written before an engine is told, so that a restarted gateway knows before it routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from state.database import reading, writing
from state.tables import sleep_marks


class Phase(StrEnum):
    """``asleep`` is certain; the other two mean that the engine was about to be told, and may have been."""

    FALLING_ASLEEP = "falling_asleep"
    ASLEEP = "asleep"
    WAKING = "waking"


@dataclass(frozen=True, slots=True)
class SleepMark:
    """``since``: epoch seconds. ``process``: the engine process it is about (None when it could not be found)."""

    instance: str
    phase: Phase
    level: int
    cause: str
    since: float
    process: str | None


class SleepMarks:
    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def all(self) -> Mapping[str, SleepMark]:
        async with reading(self._database) as connection:
            rows = (await connection.execute(select(sleep_marks))).mappings()
            marks = [SleepMark(**{**row, "phase": Phase(row["phase"])}) for row in rows]
        return {mark.instance: mark for mark in marks}

    async def put(self, mark: SleepMark) -> None:
        """Write ``mark`` in place of the instance's old one."""
        async with writing(self._database) as connection:
            await connection.execute(delete(sleep_marks).where(sleep_marks.c.instance == mark.instance))
            await connection.execute(insert(sleep_marks).values(**asdict(mark)))

    async def clear(self, instance: str) -> None:
        async with writing(self._database) as connection:
            await connection.execute(delete(sleep_marks).where(sleep_marks.c.instance == instance))
