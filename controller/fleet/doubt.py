"""Is it busy, and does it sleep? Asked of an engine that may not tell, or of which a call went wrong."""

from __future__ import annotations

import asyncio
import logging

from controller.fleet.instance import Instance
from runtime.engines.base import Engine, EngineError, EngineRefused, EngineTimeout, EngineUnreachable
from state.sleep_marks import Phase, SleepMark

log = logging.getLogger(__name__)

TRIES, PAUSE = 4, 1.0
ABANDONED_SECONDS = 10.0
"""An engine may run on for a request whose client has left: SGLang was seen to do so for four seconds."""


class Doubt:
    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    @property
    def _engine(self) -> Engine:
        return self._instance.engine

    async def busy(self) -> bool:
        """By the engine's own count. One that does not tell is given time to notice that a client has left."""
        count = await self._engine.busy()
        if count is None:
            return self._instance.clock() - self._instance.abandoned_at < ABANDONED_SECONDS
        return count > 0

    async def settle(self, level: int, error: EngineError | None, *, expected: bool) -> bool | None:
        """After a call whose outcome is not known: does it sleep? None when nobody can tell.

        An engine that cannot be asked is told to sleep once more, which changes nothing if it does: then it is certain.
        """
        if error is not None:
            log.warning("%s", error)
        refused = isinstance(error, EngineRefused) and error.status < 500
        if expected and refused and not self._engine.capabilities.tells_sleep:
            return False  # it understood, and did not do it
        asleep: bool | None = None
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(PAUSE)
            try:
                asleep = await self._engine.is_asleep()
                if asleep is None and not await self.busy():
                    log.warning("%s cannot be asked whether it sleeps: it is put to sleep", self._instance.name)
                    await self._engine.sleep(level)
                    return True
            except EngineUnreachable:
                return None
            except EngineError as again:
                log.warning("%s", again)
                continue
            # A call that timed out may still be at work in there: what it would bring about is waited for.
            if asleep is expected or (asleep is not None and not isinstance(error, EngineTimeout)):
                return asleep
        return asleep

    async def finish(self, mark: SleepMark, asleep: bool | None) -> bool | None:
        """The end of a call that its gateway did not live to see: ``asleep`` is what the engine says meanwhile.

        The call may still run in there. It is made once more: an engine does one after the other, so the answer tells
        of both, and twice is as good as once. One that cannot be asked is put to sleep in any case.
        """
        if asleep is None:
            return await self.settle(mark.level or 1, None, expected=True)
        falling = mark.phase is Phase.FALLING_ASLEEP
        if not asleep and (not falling or await self.busy()):
            return False  # it woke; or it was never told, and serves
        log.warning("%s was being told when the gateway ended, and is told again", self._instance.name)
        try:
            await (self._engine.sleep(mark.level or 1) if falling else self._engine.wake(mark.level or None))
        except EngineError as error:
            return await self.settle(mark.level or 1, error, expected=falling)
        return await self._engine.is_asleep()
