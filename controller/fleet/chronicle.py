"""The journal as it is kept across restarts: written behind what happens, read together with what is in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from controller.fleet.journal import Event, Happened, Journal
from state.database import StateError
from state.events import Events, Row

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
PRUNE_EVERY = 1000
MOST_UNWRITTEN = 10_000
"""When the database cannot be written for so long that more would wait, the oldest are lost, and the log says so."""


LAST = 1000
"""Of what happened before this journal began so much is remembered: how long wakes take, and who waits since when."""


class Chronicle:
    def __init__(self, journal: Journal, events: Events) -> None:
        self.journal = journal
        self._events = events
        self._unwritten: list[Event] = []
        self._more = asyncio.Event()
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[Chronicle]:
        """Go on from the last number, and write while open; what is left is written at the end."""
        self.journal.go_on_after(await self._events.last_number())
        await self._events.prune()
        self.journal.listeners.append(self._heard)
        writer = asyncio.create_task(self._write())
        try:
            yield self
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            await self.finish()

    async def finish(self) -> None:
        """Write what is left. What happens from now on is another's to tell, who goes on from the last number."""
        if self._heard in self.journal.listeners:
            self.journal.listeners.remove(self._heard)
        await self._write_all()

    async def read(self, after: int, limit: int, *, newest: bool) -> Sequence[Event]:
        """Oldest first, numbers above ``after``. ``newest``: the last ``limit`` of them, else the first."""
        recent = [event for event in self.journal.recent if event.number > after]
        first = self.journal.recent[0].number if self.journal.recent else self.journal.next_number
        if newest and len(recent) >= limit:
            return recent[-limit:]
        rows = await self._events.between(after, first, limit - len(recent) if newest else limit, newest=newest)
        return [*_events(rows), *recent][:limit]

    async def last(self, what: Happened) -> Sequence[Event]:
        """The last events of that kind from before this journal began, oldest first."""
        return _events(await self._events.last(what, LAST))

    def _heard(self, event: Event) -> None:
        self._unwritten.append(event)
        self._more.set()

    async def _write(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            if not await self._write_all():
                await asyncio.sleep(RETRY_SECONDS)
                self._more.set()

    async def _write_all(self) -> bool:
        async with self._writing:
            batch, self._unwritten = self._unwritten, []
            if not batch:
                return True
            try:
                await self._events.add([asdict(event) for event in batch])
                if batch[-1].number // PRUNE_EVERY > (batch[0].number - 1) // PRUNE_EVERY:
                    await self._events.prune()
            except StateError as broken:
                lost = max(0, len(batch) + len(self._unwritten) - MOST_UNWRITTEN)
                log.error("events could not be written; %d are lost: %s", lost, broken)
                self._unwritten = [*batch, *self._unwritten][lost:]
                return False
            return True


def _events(rows: Sequence[Row]) -> list[Event]:
    return [Event(**{**row, "what": Happened(row["what"])}) for row in rows]
