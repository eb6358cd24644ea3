"""The responses that the engine remembers, and those it makes in the background."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine
from typing import Any

_REMEMBERED = 256  # vLLM forgets none


class Stored:
    """One response. ``messages``: all that was said before its answer, for whoever goes on from here."""

    def __init__(self, response: dict[str, Any], messages: list[Any], *, told: bool = False) -> None:
        self.response = response
        self.messages = messages
        self.events: list[bytes] | None = [] if told else None
        self.task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def id(self) -> str:
        return str(self.response["id"])

    @property
    def under_way(self) -> bool:
        return self.response["status"] in ("queued", "in_progress")

    def tell(self, event: bytes) -> None:
        if self.events is not None:
            self.events.append(event)
            self._changed.set()

    async def replay(self, start: int) -> AsyncIterator[bytes]:
        """The events from number ``start`` on; as in vLLM only a completed response has an end."""
        assert self.events is not None
        while True:
            self._changed.clear()
            for event in self.events[start:]:
                yield event
                start += 1
                if event.startswith(b"event: response.completed"):
                    return
            await self._changed.wait()


class ResponseStore:
    """The newest ones. ``open``: whether any are kept at all."""

    def __init__(self, *, open: bool) -> None:
        self.open = open
        self._stored: OrderedDict[str, Stored] = OrderedDict()

    def get(self, response_id: str) -> Stored | None:
        return self._stored.get(response_id)

    def add(self, stored: Stored) -> None:
        self._stored[stored.id] = stored
        while len(self._stored) > _REMEMBERED:
            self._stored.popitem(last=False)

    def finish(self, response: dict[str, Any], messages: list[Any]) -> None:
        """A response is whole. One that was cancelled stays so."""
        known = self._stored.get(response["id"])
        if known is None:
            self.add(Stored(response, messages))
        elif known.response["status"] != "cancelled":
            known.response = response

    def start(self, stored: Stored, making: Coroutine[Any, Any, None]) -> None:
        """Make one in the background: nobody's leaving ends it."""
        self.add(stored)
        stored.task = asyncio.create_task(making)

    def cancel(self, stored: Stored) -> None:
        stored.response["status"] = "cancelled"
        if stored.task is not None:
            stored.task.cancel()
