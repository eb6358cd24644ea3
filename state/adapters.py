"""Adapters that are wanted, where each is and what came of it there, and a diary that only grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Table, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from state.database import reading, writing
from state.tables import adapter_events, adapter_history, adapter_places, adapters


@dataclass(frozen=True, slots=True)
class Place:
    """One instance. ``chosen``: it is to have the adapter. ``next_at``: epoch seconds of the next try.

    ``process``: the engine process that the ``failures`` are about, where it is known.
    """

    chosen: bool
    failures: int = 0
    next_at: float = 0.0
    problem: str = ""
    process: str | None = None


@dataclass(frozen=True, slots=True)
class AdapterState:
    """``origin``: who wants it. ``artifact``: the folder that holds it, once it is whole. ``created_at``: epoch."""

    name: str
    origin: str
    spec: Mapping[str, Any]
    generation: int
    created_at: float
    phase: str
    conditions: Sequence[Mapping[str, Any]] = ()
    artifact: str | None = None
    places: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a diary. ``kind``: the phase that was entered, or the type of an event. ``at``: epoch seconds."""

    at: float
    kind: str
    reason: str
    message: str


class Adapters:
    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def all(self) -> Sequence[AdapterState]:
        """In the order in which they came."""
        async with reading(self._database) as connection:
            rows = (await connection.execute(select(adapters).order_by(adapters.c.created_at))).mappings().all()
            places = (await connection.execute(select(adapter_places))).mappings().all()
        of: dict[str, dict[str, Place]] = {}
        for place in places:
            known = {key: value for key, value in place.items() if key not in ("adapter", "instance")}
            of.setdefault(place["adapter"], {})[place["instance"]] = Place(**known)
        return [AdapterState(**row, places=of.get(row["name"], {})) for row in rows]

    async def put(self, state: AdapterState, history: Sequence[Entry] = (), events: Sequence[Entry] = ()) -> None:
        """Write ``state`` in place of the adapter's old one, and add to its diary, all or nothing."""
        values = {key: value for key, value in asdict(state).items() if key != "places"}
        places = [{"adapter": state.name, "instance": name, **asdict(one)} for name, one in state.places.items()]
        async with writing(self._database) as connection:
            await connection.execute(delete(adapters).where(adapters.c.name == state.name))
            await connection.execute(insert(adapters).values(**values))
            await connection.execute(delete(adapter_places).where(adapter_places.c.adapter == state.name))
            if places:
                await connection.execute(insert(adapter_places), places)
            if history:
                await connection.execute(insert(adapter_history), _rows(state.name, history, "phase"))
            if events:
                await connection.execute(insert(adapter_events), _rows(state.name, events, "type"))

    async def remove(self, name: str) -> None:
        """Forget it, its diary too."""
        async with writing(self._database) as connection:
            await connection.execute(delete(adapters).where(adapters.c.name == name))
            for table in (adapter_places, adapter_history, adapter_events):
                await connection.execute(delete(table).where(table.c.adapter == name))

    async def history(self, name: str, limit: int) -> Sequence[Entry]:
        """The last ``limit`` phases it entered, oldest first."""
        return await self._diary(adapter_history, "phase", name, limit)

    async def events(self, name: str, limit: int) -> Sequence[Entry]:
        return await self._diary(adapter_events, "type", name, limit)

    async def _diary(self, table: Table, kind: str, name: str, limit: int) -> Sequence[Entry]:
        columns = (table.c.at, table.c[kind], table.c.reason, table.c.message)
        wanted = select(*columns).where(table.c.adapter == name).order_by(table.c.id.desc()).limit(limit)
        async with reading(self._database) as connection:
            rows = (await connection.execute(wanted)).all()
        return [Entry(*row) for row in reversed(rows)]


def _rows(adapter: str, entries: Sequence[Entry], kind: str) -> list[dict[str, Any]]:
    return [
        {"adapter": adapter, "at": one.at, kind: one.kind, "reason": one.reason, "message": one.message}
        for one in entries
    ]
