"""Percentiles, tallies and the comparison with the router: pure."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.answer import Answer, Usage
from benchmarks.ledger import Account, compare
from benchmarks.measure import FRACTIONS, Distribution, Tally, Wire

SECONDS = st.floats(1e-5, 1e4)


def of(*values: float) -> Distribution:
    found = Distribution()
    for value in values:
        found.add(value)
    return found


def answered(sent: float, first: float, ended: float, problem: str | None = None) -> Answer:
    answer = Answer()
    answer.sent, answer.first_byte, answer.first_token, answer.ended = sent, first, first, ended
    answer.usage, answer.chunks, answer.gaps, answer.problem = Usage(10, 4), 2, [0.01], problem
    return answer


@given(values=st.lists(SECONDS, min_size=1, max_size=200), fraction=st.sampled_from(sorted(FRACTIONS.values())))
def test_a_percentile_is_right_within_one_per_cent(values: list[float], fraction: float) -> None:
    """The value that so many stay at or below, as in a sorted list."""
    exact = sorted(values)[max(1, math.ceil(fraction * len(values))) - 1]

    assert of(*values).percentile(fraction) == pytest.approx(exact, rel=0.01)


@given(one=st.lists(SECONDS, max_size=50), other=st.lists(SECONDS, max_size=50))
def test_merging_is_the_same_as_measuring_together(one: list[float], other: list[float]) -> None:
    """Two clients' distributions make the distribution of both, through JSON too."""
    merged = Distribution.restore(json.loads(json.dumps(of(*one).dump())))
    merged.merge(of(*other))
    together = of(*one, *other)

    assert merged.dump()["buckets"] == together.dump()["buckets"]
    assert (merged.count, merged.largest) == (together.count, together.largest)
    assert merged.sum == pytest.approx(together.sum)


def test_nothing_measured_has_no_percentile() -> None:
    """An empty distribution says so, and does not say 0."""
    assert Distribution().summary() == {"mean": None, **dict.fromkeys(FRACTIONS), "max": None}


def test_latency_counts_from_the_intended_start() -> None:
    """A request that was written late is slow by that much: no coordinated omission."""
    tally, wire = Tally(), Wire()
    answer = answered(sent=11.0, first=11.5, ended=12.0)
    tally.take(answer, intended=10.0)
    wire.take(answer)

    assert tally.latency.largest == 2.0
    assert tally.ttft.largest == 1.5
    assert tally.lateness.largest == 1.0
    assert wire.latency.largest == 1.0
    assert wire.first_byte.largest == 0.5


def test_a_failed_request_is_an_error_and_no_latency() -> None:
    """It counts as finished and failed, its tokens count, its time does not."""
    tally = Tally()
    tally.take(answered(0.0, 0.1, 0.2, "HTTP 503"), 0.0)
    tally.take(answered(0.0, 0.1, 0.2), 0.0)
    restored = Tally.restore(json.loads(json.dumps(tally.dump())))

    assert (restored.finished, restored.failed, restored.successful) == (2, 1, 1)
    assert restored.errors == {"HTTP 503": 1}
    assert (restored.prompt_tokens, restored.completion_tokens) == (20, 8)
    assert restored.latency.count == 1


def test_what_was_never_written_reached_no_server() -> None:
    """A refused connection is an error here and nothing on the wire."""
    wire = Wire()
    answer = Answer()
    answer.fail("cannot connect", 1.0)
    wire.take(answer)

    assert wire.sent == 0


def account(requests: int, tokens: int, mean: float = 0.0, percentile: float | None = None) -> Account:
    counts = {"total_requests": requests, "successful_requests": requests, "prompt_tokens": tokens}
    times = {f"{kind} {name}": percentile for kind in ("latency", "TTFT") for name in FRACTIONS}
    return Account({**counts, "completion_tokens": tokens}, 0, mean, times)


def wire_of(*latencies: float) -> Wire:
    wire = Wire()
    for latency in latencies:
        wire.take(answered(0.0, latency, latency))
    return wire


@pytest.mark.parametrize(
    ("router", "differing"),
    [
        (account(3, 30, 1.0, 1.0), {"completion_tokens"}),
        (account(4, 30, 1.0, 1.0), {"total_requests", "successful_requests", "completion_tokens"}),
        (account(3, 12, 1.04, 1.04), {"prompt_tokens"}),
        (account(3, 12, 1.2, 1.0), {"prompt_tokens", "latency mean"}),
        (account(3, 12, 1.0, 1.1), {"prompt_tokens", *(f"{k} {n}" for k in ("latency", "TTFT") for n in FRACTIONS)}),
    ],
)
def test_comparison_names_what_differs(router: Account, differing: set[str]) -> None:
    """Counts must be equal, times within five per cent."""
    rows = list(compare(account(0, 0), router, wire_of(1.0, 1.0, 1.0)))

    assert len(rows) == 13
    assert {row.of for row in rows if not row.agrees} == differing


def test_comparison_is_of_this_run_only() -> None:
    """What the router had counted before is taken off, and its percentiles, which hold it, are left out."""
    rows = list(compare(account(7, 100, 3.0), account(10, 130, 2.4), wire_of(1.0, 1.0, 1.0)))

    assert [row.of for row in rows][-1] == "latency mean"
    assert rows[-1].router == pytest.approx(1.0)
    assert all(row.agrees for row in rows if row.of != "completion_tokens")
