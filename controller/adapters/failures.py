"""Whether trying again can help, after what went wrong. Pure."""

from __future__ import annotations

from runtime.adapters import UnfitAdapter
from runtime.downloads.errors import DownloadError
from runtime.engines.base import EngineRefused, EngineTimeout, EngineUnreachable

WORDS = (
    "connection refused",
    "connection reset",
    "timeout",
    "timed out",
    "no route to host",
    "network is unreachable",
    "temporary failure",
    "service unavailable",
    "bad gateway",
)
"""An error that says one of these may go by itself, whatever its kind."""

STATUSES = frozenset({408, 425, 429, 502, 503, 504})


def retriable(error: Exception) -> bool:
    """A refusal is final unless it says otherwise: a bad key, a bad adapter and a wrong setting stay what they are."""
    if isinstance(error, UnfitAdapter):
        return False
    if isinstance(error, DownloadError):
        return error.retriable
    if isinstance(error, EngineUnreachable | EngineTimeout):
        return True
    if isinstance(error, EngineRefused) and error.status in STATUSES:
        return True
    text = str(error).lower()
    return any(word in text for word in WORDS)
