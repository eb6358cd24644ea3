"""Room for an engine that is about to be started: the gateway that runs has idle ones leave for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from controller.config.model import Instance
from controller.launch.gateway import Gateway, GatewayRefused, NoGateway
from controller.residency.memory import Memory, gib, lacks

POLL_SECONDS = 0.1

NOT_KNOWN = "the gateway does not know it yet; after --reload its next request starts it"

Tell = Callable[[str], None]


class NoRoom(Exception):
    """There is none now, or never; the message says what is missing."""


class Room:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @asynccontextmanager
    async def kept(self, instance: Instance, tell: Tell) -> AsyncIterator[None]:
        """While open, there is room for ``instance`` awake, and nobody else is given it.

        Without a gateway of this YAML, and without figures, nothing is waited for. ``tell``: what is. Raises ``NoRoom``
        when it can never fit, or nobody has left within its ``drain_timeout_seconds``, and ``GatewayRefused``.
        """
        if not await self._is_counted(instance, tell):
            yield
            return
        name, seconds = instance.name, instance.sleep.drain_timeout_seconds
        try:
            try:
                await self._gateway.drain(name, seconds)  # from here on it counts as awake
                await self._wait(name, seconds, tell)
            except NoGateway as silent:  # the next one counts what it finds
                tell(str(silent))
            yield
        finally:
            await self._admitted(name, tell)

    async def _is_counted(self, instance: Instance, tell: Tell) -> bool:
        try:
            if not await self._gateway.is_ours():
                return False
            books = await self._gateway.books()
        except NoGateway:
            return False
        except GatewayRefused as refused:
            tell(f"whether there is room is not known: {refused}")
            return False
        if instance.name not in books.awake and instance.footprint is not None:
            raise GatewayRefused(404, NOT_KNOWN)
        takes = books.awake.get(instance.name, {})
        for place in lacks(takes, books.capacity):
            what = f"it takes {gib(takes[place])} on {place}, which has {gib(books.capacity[place])}"
            raise NoRoom(f"it can never be awake: {what}")
        return bool(takes)

    async def _wait(self, name: str, seconds: float, tell: Tell) -> None:
        told, missing = "", await self._missing(name)
        try:
            async with asyncio.timeout(seconds):
                while missing:
                    if (text := f"for room: {_words(missing)}") != told:
                        tell(text)
                        told = text
                    await asyncio.sleep(POLL_SECONDS)
                    missing = await self._missing(name)
        except TimeoutError:
            what = f"there is no room for it now ({_words(missing)}); its next request starts it"
            raise NoRoom(what) from None

    async def _missing(self, name: str) -> Memory:
        """What is held beyond what there is, where it would be."""
        books = await self._gateway.books()
        return {place: -books.free[place] for place in books.awake.get(name, {}) if books.free.get(place, 0) < 0}

    async def _admitted(self, name: str, tell: Tell) -> None:
        try:
            await self._gateway.admit(name)
        except (NoGateway, GatewayRefused) as silent:  # it looks by itself before long
            tell(str(silent))


def _words(missing: Memory) -> str:
    return ", ".join(f"{gib(size)} more are needed on {place}" for place, size in missing.items())
