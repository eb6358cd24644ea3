"""One look at an engine's metrics: fetched, put under standard names in a thread, and never failing for their sake."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from runtime.engines.base import Engine
from runtime.metrics.names import Vocabulary
from runtime.metrics.rules import Rules
from runtime.metrics.standardize import Unparseable, standardize

log = logging.getLogger(__name__)

STANDARD, RAW, FALLBACK, FAILED = "standard", "raw", "fallback", "failed"
RESULTS = (STANDARD, RAW, FALLBACK, FAILED)


@dataclass(frozen=True, slots=True)
class Form:
    """How the page is to look. ``transform`` False: as the engine wrote it."""

    rules: Rules
    vocabulary: Vocabulary
    transform: bool = True
    keep_originals: bool = True


async def scrape(engine: Engine, form: Form, count: Callable[[str], None]) -> str:
    """The page, in standard names where that can be done, else as it is. Raises ``EngineError``.

    ``count`` is told the result: ``standard``, ``raw`` (by option), ``fallback`` (it could not be read), ``failed``.
    """
    try:
        page = await engine.metrics()
    except Exception:
        count(FAILED)
        raise
    if not form.transform:
        count(RAW)
        return page
    try:
        standard = await asyncio.to_thread(
            standardize, page, form.rules, form.vocabulary, keep_originals=form.keep_originals
        )
    except Unparseable as odd:
        log.warning("the engine's metrics cannot be read (%s): passed on as they are", odd)
    except Exception:
        log.exception("the engine's metrics cannot be put under standard names: passed on as they are")
    else:
        count(STANDARD)
        return standard
    count(FALLBACK)
    return page
