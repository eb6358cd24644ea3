"""The router's own account of a run, and whether it agrees with the client's."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import httpx2

from benchmarks.measure import FRACTIONS, Wire

CALL_SECONDS = 10.0
SETTLE_SECONDS = 5.0
POLL_SECONDS = 0.05
COUNTS = ("total_requests", "successful_requests", "prompt_tokens", "completion_tokens")
TOLERANCE = 0.05
SLACK_SECONDS = 0.001


class Unreachable(Exception):
    """The server cannot be asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """One model's totals since the router started."""

    counts: Mapping[str, int]
    in_flight: int
    mean: float
    times: Mapping[str, float | None]

    @property
    def successful_seconds(self) -> float:
        return self.mean * self.counts["successful_requests"]


@dataclass(frozen=True, slots=True)
class Row:
    """``of``: what is compared. Times in seconds."""

    of: str
    client: float
    router: float
    agrees: bool

    @property
    def is_count(self) -> bool:
        return self.of in COUNTS

    @property
    def difference(self) -> float:
        """Of counts, how many; of times, which part of the router's."""
        if self.is_count:
            return self.client - self.router
        return self.client / self.router - 1 if self.router else 0.0


class Ledger:
    """Reads ``/traffic/stats/{model}`` of the server at ``base_url``."""

    def __init__(self, base_url: str, key: str | None) -> None:
        self._base = base_url
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(headers=headers, timeout=CALL_SECONDS, trust_env=False)

    def read(self, model: str) -> Account | None:
        """None when the server keeps no such account: an engine itself, or another gateway. Raises ``Unreachable``."""
        try:
            answer = self._client.get(f"{self._base}/traffic/stats/{quote(model, safe='')}")
        except httpx2.HTTPError as failed:
            raise Unreachable(
                f"nothing answers at {self._base} ({failed}). Start the router: python launch.py --config FILE"
            ) from failed
        if answer.status_code == 401:
            raise Unreachable(f"{self._base} wants a key: give its variable with --api-key-env")
        if answer.status_code != 200:
            return None
        try:
            stats = answer.json()["model_stats"]
            times = {f"latency {name}": stats["response_time"][name] for name in FRACTIONS}
            times |= {f"TTFT {name}": stats["time_to_first_token"][name] for name in FRACTIONS}
            return Account(
                counts={name: int(stats[name]) for name in COUNTS},
                in_flight=int(stats["in_flight_requests"]),
                mean=float(stats["avg_response_time"]),
                times=times,
            )
        except (ValueError, KeyError, TypeError):
            return None

    def settled(self, model: str) -> Account | None:
        """Once nothing is in flight, for the router counts a request when it has sent its last byte."""
        deadline = time.monotonic() + SETTLE_SECONDS
        account = self.read(model)
        while account is not None and account.in_flight and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            account = self.read(model)
        return account

    def close(self) -> None:
        self._client.close()


def compare(before: Account, after: Account, wire: Wire) -> Iterator[Row]:
    """Counts and the mean always; percentiles only where the router's hold nothing but this run."""
    ours = (wire.sent, wire.successful, wire.prompt_tokens, wire.completion_tokens)
    counted = {name: after.counts[name] - before.counts[name] for name in COUNTS}
    for name, count in zip(COUNTS, ours, strict=True):
        yield Row(name, count, counted[name], count == counted[name])
    if wire.successful and counted["successful_requests"]:
        seconds = after.successful_seconds - before.successful_seconds
        client, router = wire.successful_seconds / wire.successful, seconds / counted["successful_requests"]
        yield Row("latency mean", client, router, near(client, router))
    if before.counts["total_requests"]:
        return
    for kind, measured in (("latency", wire.latency), ("TTFT", wire.first_byte)):
        for name, fraction in FRACTIONS.items():
            ours_now, theirs = measured.percentile(fraction), after.times[f"{kind} {name}"]
            if ours_now is not None and theirs is not None:
                yield Row(f"{kind} {name}", ours_now, theirs, near(ours_now, theirs))


def near(client: float, router: float) -> bool:
    return math.isclose(client, router, rel_tol=TOLERANCE, abs_tol=SLACK_SECONDS)
