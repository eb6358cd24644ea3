"""Which replica gets a request, by each policy."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.balancing import (
    BLOCK_BYTES,
    POLICIES,
    SEEN_BY,
    LeastInFlight,
    Policy,
    PowerOfTwo,
    Prefix,
    Random,
    RoundRobin,
    Session,
)


@dataclass
class One:
    name: str
    in_flight: int = 0
    weight: float = 1.0


def several(*loads: int) -> list[One]:
    return [One(f"r{index}", load) for index, load in enumerate(loads)]


REPLICAS = st.lists(
    st.builds(One, st.uuids().map(str), st.integers(0, 50), st.floats(0.1, 10)),
    min_size=1,
    max_size=8,
    unique_by=lambda one: one.name,
)


@pytest.mark.parametrize("name", POLICIES)
@given(ready=REPLICAS, about=st.binary(max_size=3 * BLOCK_BYTES))
def test_every_policy_chooses_one_of_those_that_are_ready(name: str, ready: list[One], about: bytes) -> None:
    """Whatever it is asked, and again after that."""
    policy = POLICIES[name]()
    assert policy.choose(ready, about) in ready
    assert policy.choose(ready[-1:], about) is ready[-1]


def test_least_in_flight_takes_the_idlest_for_its_weight() -> None:
    """Six on a replica of weight three are less than three on one of weight one."""
    assert LeastInFlight().choose(several(2, 1, 3), b"").name == "r1"
    assert LeastInFlight().choose([One("light", 3, 1.0), One("heavy", 6, 3.0)], b"").name == "heavy"


@pytest.mark.parametrize("policy", [LeastInFlight(), RoundRobin()])
def test_equals_take_turns(policy: Policy) -> None:
    """Nine requests over three idle replicas: three each."""
    ready = several(0, 0, 0)
    assert Counter(policy.choose(ready, b"").name for _ in range(9)) == {"r0": 3, "r1": 3, "r2": 3}


def test_round_robin_follows_weights_smoothly() -> None:
    """Weights 2 and 1: never the heavy one three times running."""
    policy, ready = RoundRobin(), [One("a", weight=2.0), One("b", weight=1.0)]
    turns = "".join(policy.choose(ready, b"").name for _ in range(9))
    assert turns.count("a") == 6
    assert "aaa" not in turns


def test_random_follows_weights() -> None:
    """Three of four for a weight of three against one."""
    policy, ready = Random(random.Random(1)), [One("a", weight=3.0), One("b", weight=1.0)]
    chosen = Counter(policy.choose(ready, b"").name for _ in range(4000))
    assert 2850 < chosen["a"] < 3150


def test_power_of_two_never_takes_the_busiest() -> None:
    """Of two different ones the busier loses."""
    policy, ready = PowerOfTwo(random.Random(1)), several(0, 5, 9)
    assert {policy.choose(ready, b"").name for _ in range(200)} == {"r0", "r1"}


@given(st.binary(min_size=1), st.integers(2, 8), st.data())
def test_a_session_stays_when_others_go(key: bytes, size: int, data: st.DataObject) -> None:
    """Only the sessions of a replica that goes are moved."""
    ready = several(*[0] * size)
    home = Session().choose(ready, key)
    others = [one for one in ready if one is not home]
    gone = data.draw(st.sampled_from(others))
    assert Session().choose([one for one in ready if one is not gone], key) is home


def test_sessions_spread_by_weight() -> None:
    """Twice the weight, about twice the sessions."""
    policy, ready = Session(), [One("a", weight=2.0), One("b", weight=1.0)]
    chosen = Counter(policy.choose(ready, b"%d" % key).name for key in range(3000))
    assert 1850 < chosen["a"] < 2150


def test_a_crowded_home_is_left() -> None:
    """Affinity ends where a replica would have half as much again as its share."""
    ready = several(0, 0, 0, 0)
    home = Session().choose(ready, b"key")
    home.in_flight = 40
    for one in ready:
        one.in_flight = max(one.in_flight, 10)
    assert Session().choose(ready, b"key") is not home
    home.in_flight = 11
    assert Session().choose(ready, b"key") is home


def test_a_request_without_a_session_goes_where_there_is_room() -> None:
    """No key, no affinity."""
    assert Session().choose(several(3, 0, 3), b"").name == "r1"


def test_a_prompt_follows_its_beginning() -> None:
    """The next turn of a conversation goes where the last one went, though others are idler."""
    policy, ready = Prefix(), several(0, 0, 0)
    talk = b"s" * BLOCK_BYTES * 4
    home = policy.choose(ready, talk)
    home.in_flight = 1
    assert policy.choose(ready, talk + b"and then?" * 100) is home
    assert policy.choose(ready, b"t" * BLOCK_BYTES * 4) is not home


def test_a_prefix_gives_way_to_load() -> None:
    """The one that knows the prompt is crowded: another takes it, and knows it from then on."""
    policy, ready = Prefix(), several(0, 0)
    talk = b"s" * BLOCK_BYTES * 4
    home = policy.choose(ready, talk)
    home.in_flight = 20
    other = policy.choose(ready, talk)
    assert other is not home
    home.in_flight = 2
    assert policy.choose(ready, talk) is other


def test_a_prompt_that_many_know_goes_to_the_least_loaded_of_them() -> None:
    """Not to those that do not know it, however idle; of these no more are remembered than there is room for."""
    policy, ready = Prefix(), several(*[0] * (SEEN_BY + 2))
    talk = b"s" * BLOCK_BYTES * 4
    homes = [policy.choose([one], talk) for one in ready[:3]]
    for one, load in zip(homes, (3, 1, 2), strict=True):
        one.in_flight = load
    assert policy.choose(ready, talk) is homes[1]
    for one in ready:
        policy.choose([one], talk)
    assert {len(names) for names in policy._seen.values()} == {SEEN_BY}


def test_what_is_remembered_is_bounded() -> None:
    """A million different prompts take no more memory than the limit."""
    policy, ready = Prefix(remembered=100), several(0, 0)
    for number in range(1000):
        policy.choose(ready, b"%06d" % number * BLOCK_BYTES)
    assert len(policy._seen) == 100
