"""What an engine's error says in words, whatever shape it came in."""

from __future__ import annotations

import json
from typing import Any

LONGEST = 500


def reason_of(text: str) -> str:
    """The message of a JSON error in any engine's shape, else the text itself; at most 500 characters."""
    try:
        found = _message(json.loads(text))
    except (ValueError, RecursionError):
        found = None
    return (found or text.strip())[:LONGEST]


def _message(body: Any) -> str | None:
    if isinstance(body, str):
        return body
    if not isinstance(body, dict):
        return None
    for key in ("error", "message", "error_message", "detail"):
        found = _message(body.get(key))
        if found:
            return found
    return None
