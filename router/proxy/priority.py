"""How urgent a request is, by its own word, where the model's settings allow that."""

from __future__ import annotations

from router.errors import InvalidRequest
from router.proxy.headers import Headers, header

LARGEST = 1_000_000


def priority_of(headers: Headers, name: str | None) -> int:
    """Lower goes first, as in vLLM. Raises ``InvalidRequest`` when it is no whole number."""
    text = header(headers, name.encode()) if name else b""
    if not text:
        return 0
    try:
        priority = int(text)
    except ValueError:
        priority = LARGEST + 1
    if abs(priority) > LARGEST:
        raise InvalidRequest(f"The header {name} must be a whole number from -{LARGEST} to {LARGEST}.", "bad_priority")
    return priority
