"""The simulation of prefix caches: what it claims of the policies, and the model under it. Virtual time, seeded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.affinity import WORKLOADS, compare, main
from benchmarks.cached_replicas import Cache, Machine, Outcome
from benchmarks.conversations import BLOCK, BYTES_PER_TOKEN, arrivals
from router.balancing import POLICIES

CONVERSATIONS, ONE_PROMPT, NOTHING_SHARED = WORKLOADS


def race(index: int, seed: int, *policies: str) -> list[Outcome]:
    """Half the load on half the replicas."""
    workload = replace(WORKLOADS[index], conversations_per_second=WORKLOADS[index].conversations_per_second / 2)
    return compare(workload, Machine(), replicas=4, seconds=100.0, seed=seed, policies=policies)


@pytest.mark.parametrize("seed", [1, 2])
def test_prefix_beats_least_in_flight_on_conversations(seed: int) -> None:
    """Far more is cached, and the first token is sooner, at the median and at the worst; session is between."""
    least, session, prefix = race(0, seed, "least_in_flight", "session", "prefix")
    assert prefix.hit_rate > least.hit_rate + 0.2
    assert prefix.percentile(50) < least.percentile(50) / 2
    assert prefix.percentile(99) < least.percentile(99)
    assert least.hit_rate < session.hit_rate < prefix.hit_rate
    assert prefix.imbalance < 2


def test_where_prefix_cannot_win_it_does_not_lose() -> None:
    """With one prompt for all every replica has it; with nothing shared it is least_in_flight to the letter."""
    least, prefix = race(1, 1, "least_in_flight", "prefix")
    assert prefix.percentile(99) < 1.2 * least.percentile(99)
    least, prefix = race(2, 1, "least_in_flight", "prefix")
    assert prefix.ttft == least.ttft
    assert prefix.hit_rate == 0


def test_the_same_seed_is_the_same_race() -> None:
    """To the last digit; another seed is another."""
    first, second, other = (race(0, seed, "power_of_two")[0] for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_clients_are_the_same_whoever_serves_them() -> None:
    """What a client says depends on no policy: each has its own chance. Text and blocks are of one length."""
    first, second = ([conversation for _, conversation in arrivals(CONVERSATIONS, 1, 20.0)] for _ in range(2))
    turns = [[one.next() for _ in range(3)] for one in first]
    assert turns == list(reversed([[one.next() for _ in range(3)] for one in reversed(second)]))
    for turn in (turn for some in turns for turn in some if turn is not None):
        assert len(turn.text) == len(turn.blocks) * BLOCK * BYTES_PER_TOKEN
        assert len(set(turn.blocks + turn.said)) == len(turn.blocks) + len(turn.said)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8)), max_size=50), st.integers(1, 20))
def test_a_cache_holds_no_more_than_it_can(prompts: list[tuple[int, int]], size: int) -> None:
    """And what was read last is there, as far as it fits; the last block is always computed."""
    cache = Cache(size * BLOCK)
    for owner, length in prompts:
        blocks = [(owner, index) for index in range(length)]
        cache.keep(blocks)
        assert len(cache._blocks) <= size
        assert cache.cached(blocks) == min(length - 1, size) * BLOCK


def test_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table for each workload, all figures as JSON."""
    path = tmp_path / "out.json"
    assert main(["--seconds", "5", "--replicas", "2", "--load", "0.2", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert all(workload.name in printed for workload in WORKLOADS)
    written = json.loads(path.read_text())
    assert [one["policy"] for one in written["runs"][0]["policies"]] == list(POLICIES)
    assert {"hit_rate", "ttft_p50", "ttft_p99", "imbalance"} <= set(written["runs"][0]["policies"][0])
