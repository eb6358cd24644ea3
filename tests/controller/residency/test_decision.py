"""Who comes and who goes, from values alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.residency.books import Books
from controller.residency.decision import Outcome, Resident, Rules, Wish, decide
from controller.residency.memory import GIB, Memory
from controller.residency.sleepers import Sleeper
from controller.residency.steps import Admit, Evict, Refuse, Sink, Wait

G = GIB


def gpu(size: int, place: str = "gpu0") -> dict[str, int]:
    return {place: size * G}


def awake(name: str, size: int, place: str = "gpu0", **more: object) -> tuple[Resident, Memory]:
    values = {"asleep": {1: gpu(1, place)}, "awake_seconds": 1000.0, "idle_seconds": 100.0, **more}
    return Resident(name, name, **values), gpu(size, place)  # type: ignore[arg-type]


def asleep(name: str, place: str = "gpu0") -> tuple[Resident, Memory]:
    return Resident(name, name, awake=False, asleep={1: gpu(1, place)}, settled=False), gpu(1, place)


def wish(name: str, size: int, place: str = "gpu0", waits: float = 0.0) -> Wish:
    return Wish(name, {name: gpu(size, place)}, waits)


def at(capacity: Memory, *residents: tuple[Resident, Memory], wishes: list[Wish], **rules: object) -> Outcome:
    books = Books.of(capacity, {one.name: held for one, held in residents})
    return decide(books, [one for one, _ in residents], wishes, Rules(**rules))  # type: ignore[arg-type]


def test_what_fits_is_woken() -> None:
    outcome = at(gpu(80), awake("a", 30), asleep("b"), wishes=[wish("b", 30)])
    assert outcome.steps == (Admit("b", "b"),)


def test_three_of_thirty_on_eighty_one_leaves() -> None:
    residents = awake("a", 30, idle_seconds=100.0), awake("b", 30, idle_seconds=900.0), asleep("c")
    assert at(gpu(80), *residents, wishes=[wish("c", 30)]).steps == (Evict("b", 1, "c", False),)


def test_the_busy_the_pinned_and_the_young_stay() -> None:
    for reason in ({"idle": False}, {"awake_seconds": 1.0}, {"settled": False}):
        outcome = at(gpu(80), awake("a", 60, **reason), asleep("b"), wishes=[wish("b", 30)])
        assert isinstance(outcome.steps[0], Wait), reason
        assert outcome.again <= 15
    pinned = at(gpu(80), awake("a", 60, pinned=True), asleep("b"), wishes=[wish("b", 30)])
    assert isinstance(pinned.steps[0], Refuse)


@pytest.mark.parametrize(
    ("state", "cause", "seconds"),
    [
        ({"idle": False}, "everybody who could leave is busy", 11.0),
        ({"idle": False, "settled": False, "departed": True}, "everybody who could leave is busy", 11.0),
        ({"settled": False, "departed": True}, "'a' is not in the configuration any more, but still runs", 11.0),
        ({"awake_seconds": 8.0}, "who could leave has only just woken", 2.0),
        ({"leaving": 1}, "room is being made", 0.0),
    ],
)
def test_who_waits_is_told_what_for_and_how_long_at_most(state: dict[str, Any], cause: str, seconds: float) -> None:
    outcome = at(gpu(80), awake("a", 60, **state), asleep("b"), wishes=[wish("b", 30, waits=4.0)])
    assert outcome.steps == (Wait("b", cause, seconds),)


def test_wake_cost_and_priority_weigh_against_disuse() -> None:
    slow, quick = awake("slow", 40, wake_seconds=60.0), awake("quick", 40, wake_seconds=2.0)
    assert at(gpu(81), slow, quick, asleep("c"), wishes=[wish("c", 40)]).steps[0] == Evict("quick", 1, "c", False)
    dear, cheap = awake("dear", 40, priority=3), awake("cheap", 40, idle_seconds=50.0)
    assert at(gpu(81), dear, cheap, asleep("c"), wishes=[wish("c", 40)]).steps[0] == Evict("cheap", 1, "c", False)


def test_what_can_never_fit_is_refused_with_the_arithmetic() -> None:
    outcome = at(gpu(80), awake("a", 30, pinned=True), asleep("b"), asleep("c"), wishes=[wish("c", 60)])
    (step,) = outcome.steps
    assert isinstance(step, Refuse)
    for word in ("'c'", "60 GiB", "gpu0", "80 GiB", "31 GiB"):
        assert word in step.reason


def test_a_cold_model_waits_no_longer_than_max_wait_for_hot_ones() -> None:
    hot, hotter = awake("hot", 40, idle=False), awake("hotter", 40, idle=False, wake_seconds=9.0)
    before = at(gpu(81), hot, hotter, asleep("c"), wishes=[wish("c", 40, waits=14.0)])
    assert isinstance(before.steps[0], Wait) and before.again == 1.0
    after = at(gpu(81), hot, hotter, asleep("c"), wishes=[wish("c", 40, waits=15.0)])
    assert after.steps == (Evict("hot", 1, "c", True),)


def test_once_somebody_is_on_the_way_out_nobody_else_has_to_go() -> None:
    residents = awake("a", 60, leaving=1), awake("b", 19), asleep("c")
    assert isinstance(at(gpu(80), *residents, wishes=[wish("c", 30)]).steps[0], Wait)


def test_first_come_first_served_where_they_want_the_same_and_others_pass() -> None:
    residents = awake("a", 60, idle=False), asleep("b"), asleep("c"), asleep("d", "gpu1")
    wishes = [wish("b", 40), wish("c", 10), wish("d", 10, "gpu1")]
    steps = at(gpu(80) | gpu(80, "gpu1"), *residents, wishes=wishes).steps
    assert [type(step) for step in steps] == [Wait, Wait, Admit]


def test_a_full_host_has_them_drop_their_weights() -> None:
    levels = {1: gpu(1) | {"host": 30 * G}, 2: gpu(1)}
    full = {"host": 40 * G} | gpu(80)
    two = awake("a", 30, asleep=levels, idle_seconds=200.0), awake("b", 30, asleep=levels)
    steps = at(full, *two, asleep("c"), wishes=[wish("c", 78)]).steps
    assert {(step.name, step.level) for step in steps if isinstance(step, Evict)} == {("a", 1), ("b", 2)}


@pytest.mark.parametrize("deeper", [{}, {2: gpu(1)}])
def test_a_host_of_which_nothing_is_known_takes_all_in(deeper: dict[int, Memory]) -> None:
    levels = {1: gpu(1) | {"host": 30 * G}} | deeper
    two = awake("a", 30, asleep=levels, idle_seconds=200.0), awake("b", 30, asleep=levels)
    steps = at(gpu(80), *two, asleep("c"), wishes=[wish("c", 78)]).steps
    assert {(step.name, step.level) for step in steps if isinstance(step, Evict)} == {("a", 1), ("b", 1)}


def test_a_gpu_of_which_nothing_is_known_has_room_for_all() -> None:
    wishes = [wish("b", 60, "gpu1"), wish("c", 60, "gpu1")]
    assert at(gpu(80), asleep("b", "gpu1"), asleep("c", "gpu1"), wishes=wishes).steps == (
        Admit("b", "b"),
        Admit("c", "c"),
    )


def test_who_could_sleep_nowhere_stays_awake() -> None:
    """An engine that knows one level of sleep does not leave where the host has no memory for that."""
    kept = {1: gpu(1) | {"host": 30 * G}}
    full = {"host": 40 * G} | gpu(80)
    two = awake("a", 30, asleep=kept, idle_seconds=200.0), awake("b", 30, asleep=kept)
    assert at(full, *two, asleep("c"), wishes=[wish("c", 48)]).steps == (Evict("a", 1, "c", False),)
    for waits in (1.0, 15.0):
        outcome = at(full, *two, asleep("c"), wishes=[wish("c", 60, waits=waits)])
        assert outcome.steps == (Wait("c", "the host has no memory for who could leave", 15.0 - waits),)
    other = awake("d", 19, idle_seconds=50.0)
    steps = at(full, *two, other, asleep("c"), wishes=[wish("c", 47)]).steps
    assert steps == (Evict("a", 1, "c", False), Evict("d", 1, "c", False))


def test_who_could_sleep_nowhere_stays_awake_though_more_is_held_than_there_is() -> None:
    kept = {1: gpu(1) | {"host": 30 * G}}
    two = awake("a", 50, asleep=kept, idle_seconds=200.0), awake("b", 50, asleep=kept)
    assert at({"host": 20 * G} | gpu(80), *two, wishes=[]).steps == ()
    groups = {"a": frozenset({"b"}), "b": frozenset({"a"})}
    assert at({"host": 20 * G}, *two, wishes=[], groups=groups).steps == ()
    rivals = two[0], (replace(asleep("b")[0], asleep=kept), gpu(1))
    (step,) = at({"host": 20 * G}, *rivals, wishes=[wish("b", 50)], groups=groups).steps
    assert isinstance(step, Wait)


KEPT = {1: gpu(1) | {"host": 30 * G}}
FULL = {"host": 40 * G} | gpu(80) | gpu(80, "gpu1")


def sleeper(name: str, *, frees: int = 30, used_at: float = 0.0, needs: int = 30, place: str = "gpu1") -> Sleeper:
    return Sleeper(name, {"host": frees * G}, used_at, name, needs=gpu(needs, place))


def in_a_full_host(
    sleepers: list[Sleeper], *residents: tuple[Resident, Memory], waits: float = 0.0, **rules: object
) -> Outcome:
    """``light`` has to leave for ``c``, and to keep its weights. Its GPU has room for 19 more, the other for 80."""
    there = residents or (awake("light", 60, asleep=KEPT),)
    held = {one.name: held for one, held in (*there, asleep("c"))}
    books = Books.of(FULL, {**held, **{one.name: one.frees for one in sleepers}})
    everybody = [*(one for one, _ in there), asleep("c")[0]]
    return decide(books, everybody, [wish("c", 60, waits=waits)], Rules(**rules), sleepers)  # type: ignore[arg-type]


def test_in_a_full_host_others_drop_their_weights_for_one_that_has_to_keep_its_own() -> None:
    assert in_a_full_host([sleeper("s")]).steps == (Sink("s", 2, "c"),)
    assert in_a_full_host([sleeper("s", needs=19, place="gpu0")]).steps == (Sink("s", 2, "c"),)


def test_the_least_recently_used_drop_their_weights_and_no_more_of_them_than_have_to() -> None:
    some = [
        sleeper("b", frees=12, used_at=2.0),
        sleeper("a", frees=8, used_at=1.0),
        sleeper("c3", used_at=3.0, frees=5),
    ]
    assert in_a_full_host(some).steps == (Sink("a", 2, "c"), Sink("b", 2, "c"))
    large = [replace(one, needs=gpu(50, "gpu1")) for one in some]
    assert in_a_full_host(large).steps == (Sink("a", 2, "c"),), "one after the other"


@pytest.mark.parametrize(
    ("sleepers", "state"),
    [
        ([sleeper("s", needs=20, place="gpu0")], {}),  # no room to wake for it
        ([sleeper("s", frees=10), sleeper("t", frees=9), sleeper("u", frees=15, needs=81)], {}),  # too few
        ([sleeper("rival")], {}),  # which may not be awake with it
        ([sleeper("s")], {"asleep": {1: gpu(1) | {"host": 99 * G}}}),  # which is too large in any case
        ([sleeper("s")], {"idle": False}),
        ([sleeper("s")], {"pinned": True}),
    ],
)
def test_nobody_drops_weights_for_nothing(sleepers: list[Sleeper], state: dict[str, Any]) -> None:
    groups = {"rival": frozenset({"light"}), "light": frozenset({"rival"})}
    outcome = in_a_full_host(sleepers, awake("light", 60, **{"asleep": KEPT, **state}), groups=groups)
    assert [type(step) for step in outcome.steps] in ([Wait], [Refuse])


def test_weights_are_dropped_for_a_busy_one_once_it_is_to_be_drained() -> None:
    busy = awake("light", 60, asleep=KEPT, idle=False)
    assert isinstance(in_a_full_host([sleeper("s")], busy, waits=14.0).steps[0], Wait)
    assert in_a_full_host([sleeper("s")], busy, waits=15.0).steps == (Sink("s", 2, "c"),)


def test_who_can_leave_without_leaves_and_weights_stay_where_they_are() -> None:
    light, other = awake("light", 10, asleep=KEPT, idle_seconds=900.0), awake("other", 60)
    assert in_a_full_host([sleeper("s")], light, other).steps == (Evict("other", 1, "c", False),)


def test_while_weights_are_dropped_for_it_nobody_else_has_to_and_it_is_told() -> None:
    light, sinking = awake("light", 60, asleep=KEPT), awake("s", 40, "gpu1", leaving=2, settled=False)
    held = replace(sinking[0], asleep={2: gpu(1, "gpu1")}), gpu(40, "gpu1") | {"host": 30 * G}
    outcome = in_a_full_host([sleeper("t", frees=1)], light, held)
    assert outcome.steps == (Wait("c", "room is being made", 0.0),)


def test_weights_are_dropped_in_nobody_elses_room() -> None:
    """Whoever is before it in the line has its memory kept."""
    light, first = awake("light", 60, asleep=KEPT), awake("busy", 60, "gpu1", idle=False)
    there = [light, first, asleep("b", "gpu1"), asleep("c"), asleep("d")]
    books = Books.of(FULL, {one.name: held for one, held in there} | {"s": {"host": 30 * G}})
    residents, small, large = [one for one, _ in there], [sleeper("s", needs=19)], [sleeper("s", needs=20)]
    before, after = wish("b", 70, "gpu1"), wish("d", 60)
    for some, expected in ((small, Sink), (large, Wait)):
        (step, *_) = decide(books, residents, [wish("c", 60), after], Rules(), some).steps
        assert isinstance(step, expected)
        assert isinstance(decide(books, residents, [before, wish("c", 60)], Rules(), some).steps[1], Wait)


def test_a_replica_elsewhere_is_woken_if_that_costs_nobody_anything() -> None:
    both = Wish("m", {"m1": gpu(30), "m2": gpu(30, "gpu1")})
    residents = (
        awake("a", 60),
        (replace(asleep("m1")[0], model="m"), gpu(1)),
        (
            replace(asleep("m2", "gpu1")[0], model="m"),
            gpu(1, "gpu1"),
        ),
    )
    assert at(gpu(80) | gpu(80, "gpu1"), *residents, wishes=[both]).steps == (Admit("m", "m2"),)


def test_of_an_exclusive_group_one_is_awake() -> None:
    groups = {"a": frozenset({"b"}), "b": frozenset({"a"})}
    residents = awake("a", 1), asleep("b")
    assert at({}, *residents, wishes=[wish("b", 1)], groups=groups).steps == (Evict("a", 1, "b", False),)
    gone = awake("a", 1, leaving=1), asleep("b")
    assert isinstance(at({}, *gone, wishes=[wish("b", 1)], groups=groups).steps[0], Wait)
    nobody = asleep("a"), asleep("b")
    steps = at({}, *nobody, wishes=[wish("b", 1), wish("a", 1)], groups=groups).steps
    assert steps[0] == Admit("b", "b") and isinstance(steps[1], Wait)


def test_of_an_exclusive_group_that_is_awake_all_the_same_one_stays() -> None:
    """The one that was used last, whoever is busy, and whoever is pinned. Nobody leaves for one that leaves itself."""
    names = frozenset("abc")
    groups = {name: names - {name} for name in names}
    a, b, c = (awake(name, 1, idle_seconds=float(age)) for age, name in zip((30, 20, 10), "abc", strict=True))
    steps = at({}, a, b, c, wishes=[], groups=groups).steps
    assert steps == (Evict("a", 1, "", False, "b"), Evict("b", 1, "", False, "c"))
    busy = awake("a", 1, idle=False)
    assert at({}, busy, b, wishes=[], groups=groups).steps == (Evict("b", 1, "", False, "a"),)
    assert at({}, awake("a", 1, pinned=True), c, wishes=[], groups=groups).steps == (Evict("c", 1, "", False, "a"),)
    for staying in (busy, awake("a", 1, leaving=1), awake("a", 1, settled=False), asleep("a"), awake("d", 1)):
        assert at({}, staying, awake("b", 1, idle=False), wishes=[], groups=groups).steps == ()
    young = at({}, awake("a", 1, awake_seconds=4.0), awake("b", 1, awake_seconds=7.0), wishes=[], groups=groups)
    assert (young.steps, young.again) == ((), 3.0)


def test_who_leaves_a_group_makes_room_too() -> None:
    groups = {"a": frozenset("b"), "b": frozenset("a")}
    residents = awake("a", 30), awake("b", 30, idle_seconds=10.0), awake("c", 30)
    assert at(gpu(80), *residents, wishes=[], groups=groups).steps == (Evict("a", 1, "", False, "b"),)


def test_where_more_is_held_than_there_is_nobody_leaves_for_nothing() -> None:
    residents = awake("small", 5, idle_seconds=900.0), awake("large", 40), awake("busy", 60, idle=False)
    assert at(gpu(80), *residents, wishes=[]).steps == (Evict("large", 1, "", False),)


def test_where_more_is_held_than_there_is_the_idle_leave_until_it_fits() -> None:
    residents = [awake(name, 30, idle_seconds=float(age)) for age, name in enumerate("abcd", 10)]
    residents[3] = awake("d", 30, idle=False)
    steps = at(gpu(80), *residents, wishes=[]).steps
    assert steps == (Evict("c", 1, "", False), Evict("b", 1, "", False))
    assert at(gpu(80), *residents[:2], wishes=[]).steps == ()


def test_without_a_known_capacity_everything_fits() -> None:
    assert at({}, awake("a", 60), asleep("b"), wishes=[wish("b", 999)]).steps == (Admit("b", "b"),)


SIZES = st.integers(1, 60)
RARELY = st.sampled_from([False, False, False, False, True])


@st.composite
def situations(draw: st.DrawFn) -> tuple[Books, list[Resident], list[Wish], list[Sleeper]]:
    places = ["gpu0", "gpu1"]
    capacity = {"gpu0": 80, "gpu1": 60, "host": draw(st.integers(0, 120))}
    residents, held, wishes, sleepers = [], {}, [], []
    free = dict(capacity)
    for number in range(draw(st.integers(1, 8))):
        name, place, size = f"m{number}", draw(st.sampled_from(places)), draw(SIZES)
        deeper: dict[int, Memory] = {} if draw(st.booleans()) else {2: {place: 1}}
        levels: dict[int, Memory] = {1: {place: 1, "host": size}, **deeper}
        is_awake = draw(st.booleans()) and free[place] >= size + 1
        amount: Memory = {place: size} if is_awake else {place: 1}
        if free[place] < 1:
            continue
        free[place] -= amount[place]
        held[name] = amount
        if not is_awake and deeper and free["host"] >= size and draw(st.booleans()):
            free["host"] -= size
            held[name] = levels[1]
            sleepers.append(Sleeper(name, {"host": size}, draw(st.floats(0, 100)), name, needs={place: size - 1}))
            continue
        residents.append(
            Resident(
                name,
                name,
                awake=is_awake,
                asleep=levels,
                settled=is_awake and not draw(RARELY),
                idle=not draw(RARELY),
                pinned=draw(RARELY),
                awake_seconds=draw(st.sampled_from([100.0, 100.0, 11.0, 9.0])),
                idle_seconds=draw(st.floats(0, 100)),
                wake_seconds=draw(st.floats(0.1, 30)),
            )
        )
        if not is_awake:
            wishes.append(Wish(name, {name: {place: size}}, draw(st.floats(0, 30))))
    return Books.of(capacity, held), residents, wishes, sleepers


@given(situations())
def test_whatever_the_situation_nothing_is_promised_twice_and_nobody_leaves_who_may_not(
    found: tuple[Books, list[Resident], list[Wish], list[Sleeper]],
) -> None:
    books, residents, wishes, sleepers = found
    rules, asleep = Rules(), {one.name: one for one in sleepers}
    outcome = decide(books, residents, wishes, rules, sleepers)
    by_name = {one.name: one for one in residents}
    needs = {wish.model: wish for wish in wishes}
    free = books.free
    for step in outcome.steps:
        if isinstance(step, Admit):
            for place, size in needs[step.model].needs[step.name].items():
                free[place] -= size - books.held[step.name].get(place, 0)
        elif isinstance(step, Evict):
            one = by_name[step.name]
            assert one.awake and one.settled and not one.pinned and one.awake_seconds >= rules.min_awake_seconds
            aged = needs[step.model].waits >= rules.max_wait_seconds
            assert one.idle or aged
            assert step.firmly == aged
            free["host"] -= one.asleep[step.level].get("host", 0)
        elif isinstance(step, Sink):
            for place, size in asleep.pop(step.name).needs.items():
                free[place] -= size
    assert all(size >= 0 for place, size in free.items() if place != "host" or books.free["host"] >= 0)
    assert {step.model for step in outcome.steps} == set(needs)
    evicted = [step.name for step in outcome.steps if isinstance(step, Evict)]
    assert len(evicted) == len(set(evicted))
