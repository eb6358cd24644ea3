"""The bytes of request bodies that the gateway holds, those of all requests together."""

from __future__ import annotations

from types import TracebackType

from router.errors import Unavailable

RETRY_SECONDS = 5.0


class Buffered:
    """In bytes. ``held``: what is held now, by requests being read and by those not yet answered.

    ``limit``: how much that may be. ``largest``: how large one body may be.
    """

    __slots__ = ("held", "largest", "limit")

    def __init__(self, limit: int, largest: int) -> None:
        self.limit = limit
        self.largest = largest
        self.held = 0

    def take(self, size: int) -> bool:
        """Count ``size`` bytes more, unless that would be too many."""
        if self.held + size > self.limit:
            return False
        self.held += size
        return True

    def share(self) -> Share:
        return Share(self)

    def full(self) -> Unavailable:
        return Unavailable(
            f"The gateway holds as many request bodies as it may, {self.limit / 1e6:g} MB (router.max_buffered_mb). "
            "Try again.",
            "too_many_buffered_bytes",
            retry_after=RETRY_SECONDS,
        )


class Share:
    """What one request holds; given back at the end of the block."""

    __slots__ = ("_all", "_held")

    def __init__(self, of: Buffered) -> None:
        self._all = of
        self._held = 0

    def take(self, size: int) -> None:
        """Raises ``Unavailable`` when all requests together would hold too much."""
        if not self._all.take(size):
            raise self._all.full()
        self._held += size

    def give_back(self, size: int) -> None:
        self._held -= size
        self._all.held -= size

    def __enter__(self) -> Share:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.give_back(self._held)
