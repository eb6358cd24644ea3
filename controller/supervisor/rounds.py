"""Looking again and again, whatever goes wrong in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from state.database import StateError

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


async def keep_looking(look: Callable[[], Awaitable[None]], what: str) -> None:
    """Once a second, until cancelled. ``what``: is looked after, for the log."""
    while True:
        try:
            await look()
        except StateError as broken:
            log.error("%s", broken)
        except Exception:
            log.exception("looking after %s broke", what)
        await asyncio.sleep(LOOK_SECONDS)
