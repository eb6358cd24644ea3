"""What a program of ours writes to its log."""

from __future__ import annotations

import logging

CHATTY = ("httpx2", "httpcore2", "alembic", "aiosqlite")
"""Libraries that tell of every call."""


def begin(level: str) -> None:
    """Lines on standard error, from ``level`` (debug, info, warning, error) on."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
