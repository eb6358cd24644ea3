from __future__ import annotations

from itertools import chain, combinations

from hypothesis import given
from hypothesis import strategies as st

from controller.residency.victims import Candidate, choose


def test_one_that_is_cheap_goes_before_one_that_is_dear() -> None:
    assert choose({"gpu0": 10}, [(5.0, {"gpu0": 20}, "dear"), (1.0, {"gpu0": 10}, "cheap")]) == ["cheap"]


def test_nobody_goes_for_nothing() -> None:
    """Two small ones are cheaper each, but one large one is enough, and cheaper than both."""
    candidates = [(2.0, {"gpu0": 5}, "small"), (2.0, {"gpu0": 5}, "other"), (3.0, {"gpu0": 10}, "large")]
    assert choose({"gpu0": 10}, candidates) == ["large"]


def test_many_idle_ones_go_before_one_that_is_in_use() -> None:
    candidates = [*((0.1, {"gpu0": 2}, f"idle{n}") for n in range(5)), (100.0, {"gpu0": 10}, "hot")]
    assert sorted(choose({"gpu0": 10}, candidates) or ()) == [f"idle{n}" for n in range(5)]


def test_every_place_must_have_room() -> None:
    candidates = [(1.0, {"gpu0": 9}, "a"), (1.0, {"gpu1": 9}, "b"), (9.0, {"gpu2": 9}, "c")]
    assert sorted(choose({"gpu0": 5, "gpu1": 5}, candidates) or ()) == ["a", "b"]


def test_when_all_are_not_enough_nobody_goes() -> None:
    assert choose({"gpu0": 10}, [(1.0, {"gpu0": 9}, "a")]) is None


CANDIDATES = st.lists(
    st.tuples(
        st.floats(0.01, 100), st.fixed_dictionaries({"gpu0": st.integers(0, 9), "gpu1": st.integers(0, 9)}), st.none()
    ),
    max_size=7,
)


@given(CANDIDATES, st.dictionaries(st.sampled_from(["gpu0", "gpu1"]), st.integers(1, 20), min_size=1))
def test_no_other_set_of_three_or_fewer_is_cheaper_and_none_is_superfluous(
    found: list[tuple[float, dict[str, int], None]], missing: dict[str, int]
) -> None:
    candidates: list[Candidate[int]] = [(cost, freed, index) for index, (cost, freed, _) in enumerate(found)]
    useful = [one for one in candidates if any(one[1].get(place, 0) > 0 for place in missing)]

    def enough(some: tuple[int, ...]) -> bool:
        return all(sum(candidates[one][1].get(place, 0) for one in some) >= size for place, size in missing.items())

    def cost(some: tuple[int, ...]) -> float:
        return sum(candidates[one][0] for one in some)

    chosen = choose(missing, candidates)
    if chosen is None:
        assert not enough(tuple(one[2] for one in useful))
        return
    assert enough(tuple(chosen))
    names = [one[2] for one in useful]
    small = chain.from_iterable(combinations(names, size) for size in range(1, 4))
    assert cost(tuple(chosen)) <= min((cost(some) for some in small if enough(some)), default=float("inf")) + 1e-9
    for one in chosen if len(chosen) > 1 else ():
        assert not enough(tuple(other for other in chosen if other != one))
