"""Gateways that take over from one another: who waits for room has waited as long as it has, and nobody else has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from controller.fleet.journal import Event, Happened
from controller.fleet.waker import REQUEST
from controller.residency.line import Line, Waiting
from controller.residency.seniority import PASSED_ON_SECONDS, recall
from tests.controller.residency.client import Client
from tests.controller.residency.house import House, tenant

ROOM_FOR_ONE = {0: 80}
MAX_WAIT = 2

Build = Callable[..., House]


@pytest.fixture
def build() -> Iterator[Build]:
    """Houses that are gone at the end: ``a`` is awake, the others are not, and there is room for one."""
    built: list[House] = []

    def one(*names: str) -> House:
        settings = {"min_awake_seconds": 0, "max_wait_seconds": MAX_WAIT}
        tenants = [tenant(name, 60) for name in names]
        built.append(House(tenants, ROOM_FOR_ONE, asleep=names[1:], residency=settings))
        return built[-1]

    yield one
    for house in built:
        house.demolish()
        assert not house.wrong, house.wrong[0]


def waited_in_all(client: Client) -> float:
    return client.waited + (waited_in_all(client.onward) if client.onward else 0)


def test_a_hot_model_does_not_starve_a_cold_one_however_often_gateways_change(build: Build) -> None:
    """None of them lives as long as the cold one has to wait."""
    house = build("a", "b")
    hot, cold = [house.ask("a", lasts=0.5)], house.ask("b", lasts=0.1)
    for number in range(1, 60):
        hot.append(house.ask("a", lasts=0.5))
        house.loop.pass_time(0.2)
        if not number % 5:
            house.succeed()
        house.check()
    assert cold.outcome == "served"
    assert MAX_WAIT <= waited_in_all(cold) <= 2 * MAX_WAIT
    house.loop.pass_time(20)
    assert {client.outcome for client in hot} == {"served"}


def test_first_come_is_first_served_by_the_next_gateway(build: Build) -> None:
    """Though what waits for another model gets there before it does."""
    house = build("a", "c", "b")
    busy = house.ask("a")
    house.settle()
    asked = []
    for name in "bc":
        asked.append(house.ask(name, lasts=0.1))
        house.loop.pass_time(0.1)
    house.succeed()
    house.settle()
    assert [entry.model for entry in house.arbiter.waiting] == ["b", "c"]
    busy.finish()
    house.loop.pass_time(10)
    assert [client.outcome for client in asked] == ["served", "served"]
    assert [event.model for event in house.told if event.what is Happened.WOKEN] == ["b", "c"]


@pytest.mark.parametrize("leaves", ["before", "after"])
def test_who_comes_later_is_no_older_for_one_that_has_given_up(build: Build, leaves: str) -> None:
    house = build("a", "b")
    house.ask("a")
    gone = house.ask("b")
    house.loop.pass_time(1.5)
    if leaves == "before":
        gone.leave()
        house.settle()
    house.succeed()
    house.settle()
    gone.leave()
    house.loop.pass_time(1 if leaves == "before" else PASSED_ON_SECONDS)
    house.ask("b")
    house.settle()
    [entry] = house.arbiter.waiting
    assert entry.since == house.loop.time()


def test_only_requests_are_passed_on(build: Build) -> None:
    """Who wakes a model by hand is told that the gateway leaves."""
    house = build("a", "b", "c")
    house.ask("a")
    house.wake("b")
    house.ask("c")
    house.loop.pass_time(1)
    elder = house.live
    house.succeed()
    passed_on = [event for event in elder.fleet.journal.recent if event.seconds is not None]
    assert [(event.what, event.model, event.cause) for event in passed_on] == [(Happened.WAITS, "c", REQUEST)]


def told(model: str, seconds: float | None, at: float, what: Happened = Happened.WAITS) -> Event:
    return Event(1, at, what, model, "", seconds=seconds)


@pytest.mark.parametrize(
    ("events", "since"),
    [
        ([], 100.0),
        ([told("m", 7.0, 998.0)], 91.0),
        ([told("m", 7.0, 1000.0)], 93.0),
        ([told("other", 7.0, 998.0)], 100.0),
        ([told("m", None, 998.0)], 100.0),  # it waited, and nothing is known of it since
        ([told("m", 7.0, 998.0, Happened.WOKEN)], 100.0),
        ([told("m", 7.0, 1000.0 - PASSED_ON_SECONDS - 1)], 100.0),  # no gateway has left just now
        ([told("m", 7.0, 1001.0)], 100.0),  # somebody has set the clock
        ([told("m", 7.0, 992.0), told("m", 2.0, 999.0)], 97.0),  # it was served in between
    ],
)
def test_what_the_journal_says(events: list[Event], since: float) -> None:
    found = recall(events, now=100.0, wall=1000.0)
    assert found.of("m", 100.0) == since
    late = 100.0 + PASSED_ON_SECONDS
    assert found.of("m", late) == late


def test_the_line_is_in_the_order_of_arrival() -> None:
    line = Line()
    for model, since in (("b", 5.0), ("c", 6.0), ("a", 2.0), ("d", 6.0)):
        line.join(Waiting(model, (), since, REQUEST))
    again = Waiting("b", (), 1.0, REQUEST)
    assert line.join(again) is not again
    assert [entry.model for entry in line.entries] == ["a", "b", "c", "d"]
