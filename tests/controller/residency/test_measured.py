"""What is made of a measurement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.residency.footprint import Footprint
from controller.residency.measured import (
    awake_again,
    capacity,
    completed,
    differences,
    given_back,
    has_grown,
    held_by,
    is_elastic,
    is_steady,
)
from controller.residency.memory import GIB, Memory
from runtime.gpus import Gpu

AMOUNTS = st.dictionaries(st.sampled_from(["gpu0", "gpu1"]), st.integers(1, 100 * GIB), min_size=1)


def amount(**gibs: float) -> dict[str, int]:
    return {place: round(size * GIB) for place, size in gibs.items()}


def test_who_holds_what_is_summed_over_its_processes() -> None:
    """Others' memory is not counted, and a GPU that it does not use is not named."""
    gpus = [Gpu(0, "a", 100, 10, {1: 5, 2: 6, 3: 7}), Gpu(2, "c", 100, 10, {3: 9})]
    assert held_by({1, 2}, gpus) == {"gpu0": 11}
    assert held_by({3}, gpus) == {"gpu0": 7, "gpu2": 9}
    assert held_by(set(), gpus) == {}


def test_a_little_of_each_gpu_is_left_alone() -> None:
    """Unless it is in use: what is there has fitted."""
    gpus = [Gpu(1, "b", 80 * GIB, 80 * GIB, {}), Gpu(3, "d", 80 * GIB, 1, {})]
    assert capacity(gpus) == {"gpu1": 80 * GIB - GIB // 2, "gpu3": 80 * GIB - 1}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ENABLE_KVCACHED": "true"}, True),
        ({"ENABLE_KVCACHED": "True"}, True),  # as the section kvcached writes it
        ({"ENABLE_KVCACHED": "1"}, True),
        ({"ENABLE_KVCACHED": "false"}, False),
        ({}, False),
    ],
)
def test_which_caches_are_elastic(environment: dict[str, str], expected: bool) -> None:
    assert is_elastic(environment) is expected


@given(AMOUNTS, AMOUNTS)
def test_what_is_known_never_shrinks_unless_it_is_elastic(one: dict[str, int], other: dict[str, int]) -> None:
    """The ledger must not be too small; of an elastic cache only what is always there counts."""
    fixed, elastic = awake_again(one, other, elastic=False), awake_again(one, other, elastic=True)
    assert all(fixed[place] >= max(one.get(place, 0), other.get(place, 0)) for place in {**one, **other})
    assert all(elastic[place] == min(one.get(place, size), size) for place, size in other.items())
    assert awake_again({}, other, elastic=True) == other


def test_levels_that_were_not_seen_get_careful_figures() -> None:
    """As those in the YAML do, and no more than it holds awake."""
    awake = amount(gpu0=30, gpu1=1)
    assert completed(Footprint(awake)) == Footprint(
        awake, {1: amount(gpu0=2, gpu1=1, host=31), 2: amount(gpu0=2, gpu1=1)}
    )
    seen = completed(Footprint(awake, {1: amount(gpu0=1.5)}))
    assert seen.asleep == {1: amount(gpu0=1.5, host=31), 2: amount(gpu0=2, gpu1=1)}
    with_host = completed(Footprint(awake, {1: amount(gpu0=1.5, host=16), 2: amount(gpu0=1)}))
    assert with_host.asleep == {1: amount(gpu0=1.5, host=16), 2: amount(gpu0=1)}


@pytest.mark.parametrize(
    ("seen", "asleep", "expected"),
    [
        (30, 2, []),
        (32.9, 2, []),  # less than a tenth
        (33.1, 2, ["33.1 GiB on gpu0 awake, not 30 GiB"]),
        (26, 2, ["26 GiB on gpu0 awake, not 30 GiB"]),
        (30, 1, []),  # careful is not wrong
        (30, 2.2, []),  # a little is nothing
        (30, 3, ["3 GiB on gpu0 asleep at level 2, not 2 GiB"]),
    ],
)
def test_figures_that_are_wrong_are_told(seen: float, asleep: float, expected: list[str]) -> None:
    declared = Footprint(amount(gpu0=30), {1: amount(gpu0=2, host=30), 2: amount(gpu0=2)})
    measured = Footprint(amount(gpu0=seen), {2: amount(gpu0=asleep)})
    assert [what for _, what in differences(declared, measured)] == expected


def test_a_gpu_that_the_yaml_does_not_know_of_is_a_difference() -> None:
    declared, measured = Footprint(amount(gpu0=30)), Footprint(amount(gpu1=30))
    assert [what for _, what in differences(declared, measured)] == ["30 GiB on gpu1 awake, not 0 GiB"]


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({}, True),
        (amount(gpu0=2), True),
        (amount(gpu0=2.2), True),
        (amount(gpu0=3), False),
        (amount(gpu0=1, gpu1=5), False),  # on one it is done, on the other not
    ],
)
def test_when_memory_is_given_back(held: Memory, expected: bool) -> None:
    assert given_back(held, amount(gpu0=2, gpu1=2)) is expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [(amount(gpu0=38), True), (amount(gpu0=35), True), (amount(gpu0=30), False), ({}, False)],
)
def test_when_as_much_more_is_free(now: Memory, expected: bool) -> None:
    assert has_grown(amount(gpu0=10), now, amount(gpu0=28)) is expected


def test_steady_is_what_was_seen_some_times_in_a_row() -> None:
    high, low = amount(gpu0=30), amount(gpu0=2)
    assert not is_steady([low, low], 3)
    assert not is_steady([high, low, low], 3)
    assert is_steady([high, low, low, low], 3)
    assert not is_steady([amount(gpu0=2, gpu1=9), low, low], 3)
