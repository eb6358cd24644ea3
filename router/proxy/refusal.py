"""An answer that says nothing but that the engine takes no requests now: kept back while another may be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from router.proxy.door import Headers
from router.proxy.upstream import Silent, Upstream, UpstreamError

MAY_REFUSE = (500, 503)
SHUTTING_DOWN = b"cannot schedule new futures after shutdown"
"""A vLLM that is going down answers so, with 500, while its ``/health`` still says 200."""

LONGEST_BYTES = 65_536
"""A longer answer is none that would be asked for again."""


UNENDED_SECONDS = 2.0
"""How long the rest of a 503 may stay out: its head has said what matters."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole one, as a client would get it."""

    status: int
    headers: Headers
    body: bytes


class Refused(UpstreamError):
    """It takes no requests now, for whatever reason: vLLM when it is busy answers 503, without ``Retry-After``."""


def is_refusal(status: int, body: bytes) -> bool:
    return status == 503 or (status == 500 and SHUTTING_DOWN in body)


class Holding:
    """A sink that keeps an answer back until ``decide`` can be told whether it is a refusal, and its body so far."""

    def __init__(
        self, decide: Callable[[Upstream, bytes, bool], None], failed: Callable[[Upstream, UpstreamError], None]
    ) -> None:
        self._decide = decide
        self._failed = failed
        self._body = bytearray()

    def arrived(self, upstream: Upstream, chunk: bytes) -> None:
        self._body += chunk
        if upstream.status == 503:
            upstream.most_silence = UNENDED_SECONDS
        if upstream.complete or len(self._body) > LONGEST_BYTES:
            upstream.most_silence = inf
            body = bytes(self._body)
            self._decide(upstream, body, upstream.complete and is_refusal(upstream.status, body))

    def more(self, upstream: Upstream, chunk: bytes, frame: bytes) -> None:
        self.arrived(upstream, chunk)

    def failed(self, upstream: Upstream, error: UpstreamError) -> None:
        if upstream.status == 503 and isinstance(error, Silent):
            error = Refused("it answered 503, without an end")
        self._failed(upstream, error)
