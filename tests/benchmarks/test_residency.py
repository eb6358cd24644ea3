"""The simulation of many models: what it claims, and the model under it. Virtual time, seeded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.many_models import POLICIES, compare, main
from benchmarks.sleepers import percentile
from benchmarks.visits import Demand, models, visits

AFTERNOON = Demand(seconds=2 * 3600.0)


def test_nobody_fails_where_others_leave_and_some_do_where_they_do_not() -> None:
    """A timeout alone does not make room; and whoever is awake waits for nobody's wake."""
    torpor, lru, soon, late = compare(AFTERNOON, days=2)
    assert torpor.failed == lru.failed == torpor.failed_wakes == lru.failed_wakes == 0
    assert 0 < soon.failed < late.failed
    assert torpor.hit_rate > soon.hit_rate and torpor.hit_rate > late.hit_rate
    assert len(torpor.steady) > 20 and percentile(torpor.steady, 99) == 0.0
    assert torpor.requests == lru.requests == soon.requests == late.requests


@pytest.mark.parametrize("seed", [1, 2])
def test_what_wakes_cost_is_worth_weighing(seed: int) -> None:
    """All in all clients wait less than where whoever was used least lately leaves."""
    torpor, lru = compare(Demand(), days=1, seed=seed, policies=POLICIES[:2])
    assert torpor.mean < lru.mean


def test_the_same_seed_is_the_same_day() -> None:
    """To the last digit; another seed is another."""
    first, second, other = (compare(AFTERNOON, days=1, seed=seed, policies=POLICIES[:1])[0] for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_few_models_are_asked_for_most_of_the_time() -> None:
    """In bursts: it is rarely just one request."""
    asked = visits(Demand(drift=float("inf")), models(20), seed=1)
    counts = sorted((sum(one.model == model.name for one in asked) for model in models(20)), reverse=True)
    assert sum(counts[:5]) > sum(counts) / 2
    assert counts[-1] > 0
    assert [one.at for one in asked] == sorted(one.at for one in asked)


def test_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table, and all figures as JSON."""
    path = tmp_path / "out.json"
    assert main(["--hours", "0.3", "--days", "1", "--models", "8", "--gib", "90", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert all(one.name in printed for one in POLICIES)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [one["policy"] for one in written["policies"]] == [one.name for one in POLICIES]
    assert {"hit_rate", "wakes", "failed", "wait_p50", "wait_p99"} <= set(written["policies"][0])
