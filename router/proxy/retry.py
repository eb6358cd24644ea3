"""Whether a request may go to another replica. Pure. Never once a byte of an answer has gone to the client."""

from __future__ import annotations

from router.proxy.refusal import Refused
from router.proxy.upstream import Broken, ConnectFailed, Dropped, UpstreamError

MOST_LOST = 1
"""Times a request is sent again that an engine may have begun: should it have killed it, not all are to follow."""

MOST_REFUSED = 2
"""Times it is taken elsewhere because an engine is busy: when all are, trying each makes it worse."""


class Attempts:
    """What one request has been through."""

    def __init__(self) -> None:
        self._lost = 0
        self._refused = 0

    def may_go_on(self, error: UpstreamError) -> bool:
        """Counts ``error``. Silence is not tried again: whoever waited so long has a deadline of its own."""
        if isinstance(error, ConnectFailed):
            return True  # nothing was sent
        if isinstance(error, Refused):
            self._refused += 1
            return self._refused <= MOST_REFUSED
        if isinstance(error, Dropped | Broken):
            self._lost += 1
            return self._lost <= MOST_LOST
        return False
