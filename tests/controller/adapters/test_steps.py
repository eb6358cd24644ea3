"""What the controller does next."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.backoff import DELAYS, FRESH, Tries
from controller.adapters.placement import Seat
from controller.adapters.spec import LEAST_ADAPTERS
from controller.adapters.steps import STABLE_SECONDS, Do, Seen, Step, Wanted, next_step

NOW = 1000.0
OLD, NEW = "/a/old", "/a/new"
ALL = Wanted("all", LEAST_ADAPTERS, NEW)
ONE = replace(ALL, replicas=1)
UNFETCHED = replace(ALL, artifact=None)
DELETED = replace(ALL, deleting=True)
USED_UP = Tries(len(DELAYS) + 1, NOW, "rank too high")
LATER = Tries(1, NOW + 7, "connection refused")

A = Seen(Seat("a"), up_since=0.0)
B = Seen(Seat("b"), up_since=0.0)
NEWCOMER = replace(A, up_since=NOW - 2)
GONE = replace(A, up_since=None)


def with_it(one: Seen, path: str = NEW) -> Seen:
    return replace(one, chosen=True, path=path)


def chosen(one: Seen, tries: Tries = FRESH) -> Seen:
    return replace(one, chosen=True, tries=tries)


def asleep(one: Seen) -> Seen:
    return replace(one, seat=replace(one.seat, awake=False))


TABLE: list[tuple[str, Wanted, Sequence[Seen], Step]] = [
    ("chosen, all of them", ALL, [A, B], Step(Do.CHOOSE, ("a", "b"))),
    ("chosen, as many as wanted", ONE, [A, B], Step(Do.CHOOSE, ("a",))),
    ("none is stable yet", ALL, [NEWCOMER], Step(Do.WAIT, until=NOW - 2 + STABLE_SECONDS)),
    ("nobody is there", ALL, [], Step(Do.WAIT)),
    ("nobody is up", ALL, [GONE], Step(Do.WAIT)),
    ("one that sleeps is chosen too", ALL, [asleep(A)], Step(Do.CHOOSE, ("a",))),
    ("awake before asleep", ONE, [asleep(A), B], Step(Do.CHOOSE, ("b",))),
    ("fetched first", UNFETCHED, [chosen(A)], Step(Do.FETCH, ("a",))),
    ("fetched though all sleep", UNFETCHED, [chosen(asleep(A))], Step(Do.FETCH, ("a",))),
    ("fetched again later", UNFETCHED, [chosen(A, LATER)], Step(Do.WAIT, until=NOW + 7)),
    ("loaded", ALL, [chosen(A)], Step(Do.LOAD, ("a",))),
    ("loaded, one after the other", ALL, [with_it(A), chosen(B)], Step(Do.LOAD, ("b",))),
    ("loaded again later", ALL, [chosen(A, LATER)], Step(Do.WAIT, until=NOW + 7)),
    ("not while it sleeps", ALL, [chosen(asleep(A))], Step(Do.WAIT)),
    ("all is well", ALL, [with_it(A), with_it(B)], Step(Do.WAIT)),
    ("replaced", ALL, [with_it(A, OLD), with_it(B)], Step(Do.REPLACE, ("a",))),
    ("an old one stays if the new one will not load", ALL, [replace(with_it(A, OLD), tries=USED_UP)], Step(Do.WAIT)),
    ("another after the tries", ONE, [chosen(A, USED_UP), B], Step(Do.RELEASE, ("a",))),
    ("another is chosen", ONE, [replace(A, tries=USED_UP), B], Step(Do.CHOOSE, ("b",))),
    ("failed when none is left", ONE, [replace(A, tries=USED_UP), replace(B, tries=USED_UP)], Step(Do.FAIL)),
    ("not failed while one may come", ONE, [replace(A, tries=USED_UP), replace(GONE, seat=Seat("c"))], Step(Do.WAIT)),
    ("a lost one is replaced", ONE, [chosen(GONE), B], Step(Do.RELEASE, ("a",))),
    ("a lost one is kept if there is no other", ONE, [chosen(GONE)], Step(Do.WAIT)),
    ("fewer are wanted", ONE, [with_it(A), with_it(B)], Step(Do.REMOVE, ("b",))),
    ("the one without it goes first", ONE, [chosen(A), with_it(B)], Step(Do.REMOVE, ("a",))),
    ("no candidate any more", ALL, [with_it(replace(A, candidate=False))], Step(Do.REMOVE, ("a",))),
    ("deleted, one by one", DELETED, [with_it(A), chosen(B)], Step(Do.REMOVE, ("a",))),
    ("unloaded again later", DELETED, [replace(with_it(A), tries=LATER)], Step(Do.WAIT, until=NOW + 7)),
    ("let go after the tries", DELETED, [replace(with_it(A), tries=USED_UP)], Step(Do.REMOVE, ("a",))),
    ("deleted", DELETED, [A, B], Step(Do.FORGET)),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "seen", "step"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_next_step(wanted: Wanted, seen: Sequence[Seen], step: Step) -> None:
    """One thing at a time, and the most pressing first."""
    assert next_step(wanted, seen, NOW, random.Random(0)) == step


TRIES = st.just(FRESH) | st.builds(Tries, st.integers(1, 6), st.floats(900, 1100), st.just("x"))
SEEN = st.lists(
    st.builds(
        Seen,
        st.builds(Seat, st.text("abcd", min_size=2, max_size=2), awake=st.booleans(), adapters=st.integers(0, 3)),
        candidate=st.booleans(),
        up_since=st.none() | st.floats(900, 1000),
        chosen=st.booleans(),
        path=st.none() | st.sampled_from([OLD, NEW]),
        tries=TRIES,
    ),
    unique_by=lambda one: one.name,
    max_size=4,
)
WANTED = st.builds(
    Wanted,
    st.just("all") | st.integers(1, 3),
    st.just(LEAST_ADAPTERS),
    st.none() | st.just(NEW),
    st.booleans(),
)


@given(WANTED, SEEN)
def test_steps_keep_to_what_is_wanted(wanted: Wanted, seen: list[Seen]) -> None:
    """Whatever the state: nobody unstable or used up is chosen, and nothing is loaded where it may not be."""
    step = next_step(wanted, seen, NOW, random.Random(0))
    about = [one for one in seen if one.name in step.instances]
    if step.do is Do.CHOOSE:
        assert all(one.candidate and not one.chosen and one.stable_at <= NOW for one in about)
        assert not any(one.tries.used_up for one in about)
        limit = sum(one.candidate for one in seen) if wanted.replicas == "all" else int(wanted.replicas)
        assert len(about) + sum(one.chosen for one in seen) <= limit
    if step.do in (Do.LOAD, Do.REPLACE):
        assert wanted.artifact == NEW
        assert all(one.chosen and one.candidate and one.seat.awake and one.tries.due(NOW) for one in about)
        assert all((one.path is None) is (step.do is Do.LOAD) for one in about)
    if step.do is Do.FORGET:
        assert wanted.deleting and not any(one.chosen for one in seen)
    if step.do is Do.WAIT:
        assert step.until > NOW
