"""A connection of the upstream client whose transport is a double, so that each read is exactly what a test says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from router.proxy.upstream import Upstream, UpstreamError


class Wire:
    """What a transport does, written down."""

    def __init__(self) -> None:
        self.closing = False
        self.unsent = 0

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def write(self, data: bytes) -> None:
        pass

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unsent


@dataclass
class Taken:
    """A sink: what came of one request. ``outcomes``: None for a whole answer."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    outcomes: list[UpstreamError | None] = field(default_factory=list)
    frames: int = 0

    def arrived(self, upstream: Upstream, piece: bytes) -> None:
        assert not self.outcomes
        if not self.status:
            self.status, self.headers = upstream.status, list(upstream.headers)
        self.body += piece
        if upstream.complete:
            self.outcomes.append(None)

    def more(self, upstream: Upstream, piece: bytes, frame: bytes) -> None:
        assert self.status
        assert not self.outcomes
        if frame:
            assert frame in (b"%x\r\n%b\r\n" % (len(piece), piece), b"%X\r\n%b\r\n" % (len(piece), piece))
            self.frames += 1
        self.body += piece

    def failed(self, upstream: Upstream, error: UpstreamError) -> None:
        self.outcomes.append(error)

    @property
    def outcome(self) -> UpstreamError | None:
        assert len(self.outcomes) == 1
        return self.outcomes[0]


class Connection:
    def __init__(self) -> None:
        self.wire = Wire()
        self.upstream = Upstream()
        self.upstream.connection_made(self.wire)  # type: ignore[arg-type]  # as much of one as is asked for

    def ask(self, reads: Iterable[bytes], taken: Taken | None = None) -> Taken:
        """One request, and what is read for it until the connection is closed or no more comes."""
        taken = taken or Taken()
        self.upstream.begin(b"", b"", taken)
        for data in reads:
            if data and not self.wire.closing:
                self.upstream.data_received(data)
        return taken

    def lose(self, error: Exception | None = None) -> None:
        self.upstream.connection_lost(error)
