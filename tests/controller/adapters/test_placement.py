"""Where an adapter goes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.placement import Seat, choose, surplus
from controller.adapters.spec import BIN_PACK, LEAST_ADAPTERS, LEAST_LOAD, RANDOM, SCHEDULERS

SEATS = st.lists(
    st.builds(
        Seat,
        st.text("abcdefgh", min_size=3, max_size=3),
        awake=st.booleans(),
        adapters=st.integers(0, 4),
        slots=st.none() | st.integers(1, 4),
        most=st.none() | st.integers(1, 4),
        load=st.integers(0, 9),
    ),
    unique_by=lambda seat: seat.instance,
    max_size=6,
)
POLICIES = st.sampled_from(sorted(set(SCHEDULERS.values())))


def one(policy: str, *seats: Seat) -> str:
    return choose(policy, seats, 1, random.Random(1))[0]


EMPTY, HALF, FULL = Seat("empty", slots=4), Seat("half", adapters=2, slots=4), Seat("full", adapters=4, slots=4)
IDLE, BUSY = Seat("idle", adapters=3), Seat("busy", load=9)
ASLEEP = Seat("asleep", awake=False)

TABLE = [
    (LEAST_ADAPTERS, (FULL, HALF, EMPTY), "empty"),
    (BIN_PACK, (FULL, HALF, EMPTY), "half"),
    (BIN_PACK, (FULL,), "full"),
    (LEAST_LOAD, (BUSY, IDLE), "idle"),
    (LEAST_ADAPTERS, (BUSY, IDLE), "busy"),
    (LEAST_ADAPTERS, (ASLEEP, FULL), "full"),
    (BIN_PACK, (ASLEEP,), "asleep"),
]


@pytest.mark.parametrize(("policy", "seats", "chosen"), TABLE)
def test_policies(policy: str, seats: tuple[Seat, ...], chosen: str) -> None:
    """Awake and with a free slot goes before everything; a full one is taken when there is no other."""
    assert one(policy, *seats) == chosen


def test_random_is_by_chance_alone() -> None:
    """Every one that is as good as the others is chosen some time."""
    seats, chance = [Seat(name) for name in "abc"], random.Random(7)
    assert {choose(RANDOM, seats, 1, chance)[0] for _ in range(50)} == {"a", "b", "c"}


@given(POLICIES, SEATS, st.integers(-1, 8), st.integers())
def test_as_many_as_there_are(policy: str, seats: list[Seat], count: int, seed: int) -> None:
    """Never one twice, never one that can hold no more, and as many as wanted where there are so many."""
    chosen = choose(policy, seats, count, random.Random(seed))
    open_ones = {seat.instance for seat in seats if seat.open}
    assert len(set(chosen)) == len(chosen) == min(max(0, count), len(open_ones))
    assert set(chosen) <= open_ones


@given(POLICIES, SEATS, st.integers(-1, 8))
def test_what_is_given_up_is_what_is_there(policy: str, seats: list[Seat], count: int) -> None:
    """As many as asked for, the worst first."""
    gone = surplus(policy, seats, count)
    assert len(set(gone)) == len(gone) == min(max(0, count), len(seats))
    assert set(gone) <= {seat.instance for seat in seats}
