"""The races at which gateways that swap models were seen to hang, to loop or to lose requests. Each is forced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from controller.fleet.errors import Busy, CalledOff, DeadlinePassed, NotPossible
from controller.fleet.instance import DEEPER, EVICTED
from controller.fleet.journal import Happened
from controller.fleet.state import Hold, State
from controller.residency import arbiter
from controller.residency.arbiter import Arbiter
from controller.residency.books import Books
from controller.residency.decision import Outcome, decide
from state.desired_states import Wanted
from state.sleep_marks import Phase
from tests.controller.residency.client import Client
from tests.controller.residency.house import House, launched, tenant

ROOM_FOR_ONE = {0: 80}
SOON = {"min_awake_seconds": 0, "max_wait_seconds": 2}


Build = Callable[..., House]


@pytest.fixture
def build() -> Iterator[Build]:
    """Houses that are gone at the end."""
    built: list[House] = []

    def one(*args: Any, **more: Any) -> House:
        built.append(House(*args, **{"residency": SOON, **more}))
        return built[-1]

    yield one
    for house in reversed(built):
        house.demolish()


@pytest.fixture
def house(build: Build) -> House:
    """``a`` is awake, ``b`` is not, and there is room for one."""
    return build([tenant("a", 60), tenant("b", 60)], ROOM_FOR_ONE, asleep=["b"])


def reasons(house: House) -> list[str]:
    """Why sleeps did not happen."""
    return [one.detail for one in house.fleet.journal.recent if one.what is Happened.SLEEP_CALLED_OFF]


def served(*clients: Client) -> bool:
    return all(client.outcome == "served" for client in clients)


@pytest.mark.parametrize("step", ["busy", "put"])
def test_a_request_at_the_idle_edge_keeps_its_model_awake(house: House, step: str) -> None:
    """Unloaded because idle, and asked at that very moment, before the engine was told: it never is."""
    steps = house.engines["a"].steps if step == "busy" else house.marks.steps
    held = steps.hold(step)
    asleep = house.put_to_sleep("a", "idle")
    house.settle()
    assert held.reached.is_set() and house.state("a") is State.DRAINING
    asking = house.ask("a", lasts=0.1)
    house.settle()
    held.go.set()
    house.loop.pass_time(1)
    assert served(asking) and asleep.exception() is not None
    assert reasons(house) == ["a request came"]
    assert "sleep 1" not in house.engines["a"].steps.happened


def test_where_marks_cannot_be_written_nobody_is_told_to_leave_again_and_again(house: House) -> None:
    """The disk is full: no engine sleeps without its mark. Who waits is served once there is room on it.

    It is not filled with traces either.
    """
    house.marks.broken = True
    asking = house.ask("b", lasts=0.1)
    house.loop.pass_time(10)
    assert asking.phase == "waiting" and house.state("a") is State.READY
    assert len([event for event in house.told if event.what is Happened.EVICTED]) <= 2 * 10 + 1
    house.put_to_sleep("a", "idle")
    house.loop.pass_time(1)
    assert house.wrong == []
    house.marks.broken = False
    house.loop.pass_time(2)
    assert served(asking)


def test_who_was_awake_before_the_gateway_may_leave_at_once(build: Build) -> None:
    """How long it has been is not known: whoever waits does not wait for that once more after each restart."""
    house = build(
        [tenant("a", 60), tenant("b", 60)],
        ROOM_FOR_ONE,
        asleep=["b"],
        residency={"min_awake_seconds": 10, "max_wait_seconds": 15},
    )
    asking = house.ask("b", lasts=0.1)
    house.loop.pass_time(2)
    assert served(asking)
    again = house.ask("a", lasts=0.1)
    house.loop.pass_time(7)
    assert again.phase == "waiting"
    house.loop.pass_time(3)
    assert served(again)


def test_a_request_after_the_edge_wakes_its_model_again(house: House) -> None:
    """The engine has been told: it sleeps first, and wakes then. Nothing is stuck, and the next one is served."""
    held = house.engines["a"].hold("sleep")
    house.put_to_sleep("a", "idle")
    house.settle()
    asking = house.ask("a", lasts=0.1)
    house.settle()
    assert (house.state("a"), asking.phase) == (State.FALLING_ASLEEP, "waiting")
    held.go.set()
    house.loop.pass_time(1)
    assert served(asking, ask_and_wait(house, "a"))


def ask_and_wait(house: House, model: str, seconds: float = 5.0) -> Client:
    client = house.ask(model, lasts=0.0)
    house.loop.pass_time(seconds)
    house.check()
    return client


def test_resurrected_while_it_leaves_for_another(house: House) -> None:
    """Asked again before it was told, it stays, and serves; who waits gets its place when it is its turn."""
    held = house.engines["a"].hold("busy")
    cold = house.ask("b", lasts=0.1)
    house.settle()
    assert held.reached.is_set()
    again = house.ask("a", lasts=1.0)
    house.settle()
    held.go.set()
    house.loop.pass_time(0.5)
    assert (again.phase, cold.phase, house.state("a")) == ("in flight", "waiting", State.READY)
    house.loop.pass_time(10)
    assert served(again, cold)
    assert cold.waited < 5


@pytest.mark.parametrize("turns", range(0, 60, 5))
def test_evicted_between_awake_and_the_first_byte(house: House, turns: int) -> None:
    """Its place is wanted at whatever moment of its wake: who waited for it is served first."""
    first = house.ask("b", lasts=0.5)
    house.loop.turn(turns)
    second = house.ask("a", lasts=0.5)
    for _ in range(100):
        house.loop.turn()
        house.check()
    house.loop.pass_time(20)
    house.check()
    assert served(first, second)
    assert first.waited < 1  # as long as one answer, if it was asked for before it was told


@pytest.mark.parametrize("turns", range(8))
def test_one_place_is_given_once(build: Build, turns: int) -> None:
    """The second one is asked for while the first one is let in, and does not wake yet."""
    house = build([tenant("a", 60), tenant("b", 60)], ROOM_FOR_ONE, asleep=["a", "b"])
    for engine in house.engines.values():
        engine.lasts["wake"] = 1.0
    clients = [house.ask("a", lasts=0.5)]
    house.loop.turn(turns)
    clients.append(house.ask("b", lasts=0.5))
    for _ in range(30):
        house.loop.turn()
        house.check()
    house.loop.pass_time(20)
    house.check()
    assert served(*clients)


def test_a_model_that_can_never_fit_moves_nobody(build: Build) -> None:
    """It is refused at once, each time, with the arithmetic: no evicting and reloading for ever."""
    house = build([tenant("a", 60), tenant("huge", 90)], ROOM_FOR_ONE, asleep=["huge"])
    for _ in range(5):
        asking = ask_and_wait(house, "huge")
        assert (asking.outcome, asking.waited) == ("NoRoom", 0.0)
        assert "90 GiB" in asking.reason and "80 GiB" in asking.reason
    assert {event.what for event in house.told} == {Happened.READY, Happened.REFUSED}
    assert house.awake == {"a"}


def test_one_eviction_freezes_nobody_else(build: Build) -> None:
    """While a victim hangs in its sleep, who is awake serves on without waiting, and other places change hands."""
    tenants = [tenant("a", 50), tenant("beside", 20), tenant("b", 50), tenant("far", 50, gpus=[1])]
    tenants += [tenant("elsewhere", 50, gpus=[1])]
    house = build(tenants, {0: 80, 1: 60}, asleep=["b", "elsewhere"])
    house.ask("beside").finish()
    hung = house.engines["a"].hold("sleep")
    waiting = house.ask("b", lasts=0.0)
    house.settle()
    assert hung.reached.is_set()
    for _ in range(20):
        beside, elsewhere = ask_and_wait(house, "beside", 0.2), ask_and_wait(house, "elsewhere", 0.2)
        assert served(beside, elsewhere) and beside.waited == 0.0
    assert waiting.phase == "waiting"
    hung.go.set()
    house.loop.pass_time(5)
    assert served(waiting)


def test_a_hot_model_does_not_starve_a_cold_one(house: House) -> None:
    """Never without a request, it drains for who has waited long enough; new ones of its own do not call that off."""
    hot = []
    cold: Client | None = None
    for number in range(100):
        hot.append(house.ask("a", lasts=0.5))
        if number == 5:
            cold = house.ask("b", lasts=0.1)
        house.loop.pass_time(0.2)
        house.check()
    assert cold is not None and served(cold)
    assert 2 <= cold.waited <= 3.5
    house.loop.pass_time(20)
    assert served(*hot)


def test_models_that_wait_for_each_others_places_take_turns(build: Build) -> None:
    """One needs both GPUs, the others one each, and all are asked all the time."""
    tenants = [tenant("both", 100, gpus=[0, 1]), tenant("left", 50), tenant("right", 50, gpus=[1])]
    house = build(tenants, {0: 60, 1: 60}, asleep=["both"])
    clients = []
    for _ in range(200):
        clients += [house.ask(model, lasts=0.3) for model in ("both", "left", "right")]
        house.loop.pass_time(0.25)
        house.check()
    house.loop.pass_time(60)
    assert served(*clients)
    assert max(client.waited for client in clients) < 10


def test_who_was_to_leave_for_a_client_that_has_left_stays(house: House) -> None:
    """If it has not been told yet."""
    held = house.engines["a"].hold("busy")
    waiting = house.ask("b")
    house.settle()
    assert held.reached.is_set()
    waiting.leave()
    house.settle()
    held.go.set()
    house.loop.pass_time(5)
    house.check()
    assert house.awake == {"a"} and house.arbiter.waiting == ()
    assert reasons(house) == ["it need not leave any more"]
    assert served(ask_and_wait(house, "b"), ask_and_wait(house, "a"))


def test_a_wake_that_fails_after_somebody_left_for_it(house: House) -> None:
    """It is tried again, ever later; then who waits is told. Who left comes back when asked, and so does it, mended."""
    house.engines["b"].faults += ["wake refused"] * 3
    waiting = [house.ask("b", lasts=0.0) for _ in range(3)]
    house.loop.pass_time(30)
    house.check()
    assert {client.outcome for client in waiting} == {"WakeFailed"}
    failed = [event.time for event in house.told if event.what is Happened.WAKE_FAILED]
    assert [round(later - earlier) for earlier, later in pairwise(failed)] == [1, 2]
    assert served(ask_and_wait(house, "a"), ask_and_wait(house, "b"))


def test_a_full_host(build: Build) -> None:
    """Who leaves then drops its weights."""
    house = build([tenant(name, 60) for name in "abc"], ROOM_FOR_ONE, host=70, asleep=["b", "c"])
    assert [house.fleet.instances[name].level for name in "bc"] == [1, 2]
    for name in "bcabac":
        assert served(ask_and_wait(house, name))
    assert house.fleet.instances["a"].sleeps[EVICTED] > 0


PATIENT = {"min_awake_seconds": 0, "max_wait_seconds": 500}


def full_host(build: Build, **more: Any) -> House:
    """``light`` has to leave for ``cold``, with its weights in the host. There are those of ``far``."""
    tenants = [tenant("light", 60), tenant("cold", 60), tenant("far", 50, gpus=[1])]
    there = {"host": 70, "light": ["light"], "asleep": ["far", "cold"], "residency": PATIENT}
    house = build(tenants, {0: 80, 1: 60}, **{**there, **more})
    assert [house.fleet.instances[name].level for name in ("far", "cold")] == [1, 2]
    return house


def test_a_full_host_is_left_for_one_that_can_only_keep_its_weights(build: Build) -> None:
    """At once, and not when time has passed: who sleeps there drops its own first."""
    house = full_host(build)
    cold = house.ask("cold", lasts=0.1)
    pass_and_check(house, 2)
    assert served(cold)
    assert [house.fleet.instances[name].level for name in ("light", "far")] == [1, 2]
    assert [(event.what, event.cause) for event in house.told if event.instance == "far"] == [
        (Happened.WAKE_BEGAN, DEEPER),
        (Happened.READY, ""),
        (Happened.WOKEN, DEEPER),
        (Happened.SLEPT, DEEPER),
    ]
    assert served(*(ask_and_wait(house, name) for name in ("light", "far", "cold")))


def test_who_is_asked_for_while_it_drops_its_weights_serves(build: Build) -> None:
    """Then it holds none in the host either."""
    house = full_host(build)
    held = house.engines["far"].hold("wake")
    cold = house.ask("cold", lasts=0.1)
    house.settle()
    assert held.reached.is_set() and house.arbiter.leaving == {"far"}
    (waits,) = [event.detail for event in house.told if event.what is Happened.WAITS]
    assert waits == "'far' drops its weights, for the host is full"
    far = house.ask("far")
    house.settle()
    held.go.set()
    pass_and_check(house, 2)
    assert (far.phase, cold.outcome, house.state("far")) == ("in flight", "served", State.READY)
    far.finish()


def test_one_that_has_just_left_drops_its_weights_at_once(build: Build) -> None:
    """It left for one that came later, with them where the first in the line waits for room. It goes down once."""
    tenants = [tenant("light", 60), tenant("cold", 60, host_memory_gib=99), tenant("far", 50, gpus=[1])]
    tenants.append(tenant("later", 50, gpus=[1], host_memory_gib=99))
    there: dict[str, Any] = {"host": 70, "light": ["light"], "asleep": ["cold", "later"], "residency": PATIENT}
    house = build(tenants, {0: 80, 1: 60}, **there)
    busy = house.ask("light")
    house.loop.pass_time(0.1)
    cold = house.ask("cold", lasts=0.1)
    held = house.engines["far"].hold("sleep")
    later = house.ask("later", lasts=0.1)
    house.settle()
    assert held.reached.is_set() and [one.model for one in house.arbiter.waiting] == ["cold", "later"]
    busy.finish()
    house.settle()
    held.go.set()
    pass_and_check(house, 2)
    assert served(busy, cold, later)
    slept = [event for event in house.told if (event.instance, event.what) == ("far", Happened.SLEPT)]
    assert [(event.cause, event.level) for event in slept] == [(EVICTED, 1), (DEEPER, 2)]


def test_who_is_waited_for_drops_no_weights(build: Build) -> None:
    """It may not be woken yet, and is not to be told to meanwhile."""
    house = full_host(build, sleep_manager={"min_sleep_duration": 30, "wake_timeout_seconds": 60})
    far, _ = house.ask("far", lasts=0.1), house.wake("cold")
    pass_and_check(house, 10)
    assert (far.phase, house.state("cold"), house.engines["far"].asleep) == ("waiting", State.ASLEEP, True)
    pass_and_check(house, 25)
    assert served(far) and house.state("cold") is State.READY
    assert DEEPER not in {event.cause for event in house.told}


def test_one_that_does_not_wake_to_drop_its_weights_is_left_in_peace(build: Build) -> None:
    """Ever longer. Who waits is served as soon as it can."""
    house = full_host(build)
    house.engines["far"].faults += ["wake refused"] * 3
    cold = house.ask("cold", lasts=0.1)
    pass_and_check(house, 6)
    assert cold.phase == "waiting" and house.awake == {"light"}
    pass_and_check(house, 4)
    assert served(cold)
    tried = [event.time for event in house.told if event.what is Happened.WAKE_BEGAN and event.instance == "far"]
    assert [round(later - earlier) for earlier, later in pairwise(tried)] == [1, 2, 4]


@pytest.mark.parametrize(
    "why_not",
    [
        {"host": 70, "models": {"far": {"pinned": True}}},
        {"host": 70, "light": ["light", "far"]},
        {"host": 70, "groups": {"one": {"members": ["far", "light"], "exclusive": True}}},
    ],
)
def test_nobody_drops_weights_in_vain(build: Build, why_not: dict[str, Any]) -> None:
    """Nor who has no way to, nor who may not be awake now. It is told what is waited for."""
    house = full_host(build, **why_not)
    cold = house.ask("cold", seconds=5, lasts=0.1)
    pass_and_check(house, 1)
    assert [one.why for one in house.arbiter.waiting] == ["the host has no memory for who could leave"]
    pass_and_check(house, 5)
    assert cold.outcome == "DeadlinePassed"
    assert "wake 1" not in house.engines["far"].steps.happened and house.fleet.instances["far"].level == 1


IDLE = {
    "auto_sleep_enabled": True,
    "idle_threshold_seconds": 2,
    "min_sleep_duration": 0,
    "check_interval_seconds": 1,
    "wake_timeout_seconds": 60,
}


@pytest.mark.parametrize(("room", "levels"), [(130, [1, 2, 1]), (70, [2, 1, 1])])
def test_a_full_host_is_left_by_who_was_used_least_recently(build: Build, room: int, levels: list[int]) -> None:
    """Where it has room to wake for that, while the one that falls asleep is awake; else that one drops its weights."""
    house = build([tenant(name, 60) for name in "abc"], {0: room}, host=130, asleep=["b", "c"], sleep_manager=IDLE)
    assert served(ask_and_wait(house, "a"))
    pass_and_check(house, 10)
    assert house.awake == set()
    assert [house.fleet.instances[name].level for name in "abc"] == levels
    assert served(*(ask_and_wait(house, name) for name in "abc"))


def test_weights_are_dropped_where_there_is_room_to_wake_for_it(build: Build) -> None:
    """An engine has to come back for that: nobody leaves for it, and no memory is given twice."""
    ladder = {"min_sleep_duration": 0, "level2_after_seconds": 1, "check_interval_seconds": 1}
    house = build([tenant("a", 60), tenant("b", 60)], ROOM_FOR_ONE, asleep=["b"], sleep_manager=ladder)
    for engine in house.engines.values():
        engine.lasts |= {"wake": 0.5, "sleep": 0.5}
    pass_and_check(house, 10)
    assert (house.awake, house.fleet.instances["b"].level) == ({"a"}, 1)
    house.put_to_sleep("a")
    pass_and_check(house, 20)
    assert house.awake == set() and [house.fleet.instances[name].level for name in "ab"] == [2, 2]


def test_one_that_is_waited_for_is_not_stopped_for_being_idle(build: Build) -> None:
    """There is no room for it yet: it has to wake then, and not to start."""
    ladder = {"min_sleep_duration": 0, "stop_after_seconds": 3, "check_interval_seconds": 1}
    patient = {"min_awake_seconds": 0, "max_wait_seconds": 30}
    entries = [tenant("a", 60), launched(1, "b", 60, sleep_manager=ladder)]
    house = build(entries, ROOM_FOR_ONE, asleep=["b"], residency=patient)
    busy, asking = house.ask("a", lasts=10), house.ask("b", lasts=1)
    pass_and_check(house, 8)
    assert (busy.outcome, house.state("b")) == ("", State.ASLEEP)
    pass_and_check(house, 5)
    assert served(busy, asking) and Happened.STOPPED not in happened(house, "b")
    pass_and_check(house, 30)
    assert Happened.STOPPED not in happened(house, "b")  # awake it stays: only those that sleep are stopped
    house.put_to_sleep("b")
    pass_and_check(house, 5)
    assert house.state("b") is State.STOPPED


def test_one_that_is_woken_as_its_stop_begins_stays(build: Build) -> None:
    """What was true as the stop was decided is not as its turn comes."""
    house = build([launched(0, "a", 60)], ROOM_FOR_ONE, asleep=["a"])
    way, instance = house.fleet.transitions["a"], house.fleet.instances["a"]
    waking = house.loop.create_task(way.wake("request"))
    stopping = house.loop.create_task(way.stop("idle", 0, wanted=lambda: instance.state is State.ASLEEP))
    house.loop.pass_time(1)
    assert waking.exception() is None and isinstance(stopping.exception(), CalledOff)
    assert house.state("a") is State.READY


def happened(house: House, name: str) -> list[Happened]:
    return [event.what for event in house.fleet.journal.recent if event.instance == name]


def pass_and_check(house: House, seconds: int) -> None:
    for _ in range(10 * seconds):
        house.loop.pass_time(0.1)
        house.check()


def test_two_fall_asleep_at_once_where_the_host_has_room_for_one(build: Build) -> None:
    """At one and the same tick of the clock: the second one drops its weights."""
    house = build([tenant("a", 30), tenant("b", 30)], ROOM_FOR_ONE, host=40)
    house.put_to_sleep("a", "idle")
    house.put_to_sleep("b", "idle")
    house.loop.pass_time(1)
    house.check()
    assert [house.fleet.instances[name].level for name in "ab"] == [1, 2]


def test_one_falls_asleep_between_the_decision_that_another_leaves_and_its_leaving(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host has room for the weights of one: who leaves drops its own, though it was to keep them."""
    pinned = {"a": {"pinned": True}}
    house = build([tenant("a", 12), tenant("b", 54)], {0: 60}, host=60, light=["a"], models=pinned)

    def meanwhile(*of: Any) -> Outcome:
        outcome = decide(*of)
        if outcome.steps and house.state("a") is State.READY:
            house.put_to_sleep("a")
        return outcome

    monkeypatch.setattr(arbiter, "decide", meanwhile)
    house.loop.pass_time(5)
    house.check()
    assert [house.fleet.instances[name].level for name in "ab"] == [1, 2]
    assert house.awake == set() and house.over() == {}


def test_weights_in_the_host_are_not_forgotten_while_their_engine_cannot_be_asked(build: Build) -> None:
    """By a gateway that has just started. Who falls asleep meanwhile drops its own."""
    house = build([tenant("a", 60), tenant("b", 60)], {0: 130}, host=70, asleep=["b"])
    held = house.engines["b"].hold("is_asleep")
    restart(house)
    house.loop.pass_time(5)
    house.put_to_sleep("a")
    house.loop.pass_time(1)
    house.check()
    assert (house.state("a"), house.fleet.instances["a"].level) == (State.ASLEEP, 2)
    held.go.set()
    house.loop.pass_time(5)
    house.check()
    assert house.fleet.instances["b"].level == 1


def test_weights_in_the_host_are_not_forgotten_while_their_engine_is_ill(build: Build) -> None:
    house = build([tenant("a", 60), tenant("b", 60)], {0: 130}, host=70, asleep=["b"])
    house.engines["b"].fall_ill()
    house.loop.pass_time(20)
    assert house.state("b") is State.FAILED
    house.put_to_sleep("a")
    house.loop.pass_time(1)
    house.check()
    assert (house.state("a"), house.fleet.instances["a"].level) == (State.ASLEEP, 2)
    house.engines["b"].come_back()
    house.loop.pass_time(5)
    house.check()
    assert house.fleet.instances["b"].level == 1


def test_a_model_in_use_does_not_pay_for_the_books(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """They grow with the fleet. While nobody waits for room, a thousand requests have them made a few times at most."""
    house = build([tenant("a", 30), tenant("b", 30)], ROOM_FOR_ONE)
    house.settle()
    made: list[None] = []
    books = Arbiter.books

    def counted(arbiter: Arbiter) -> Books:
        made.append(None)
        return books(arbiter)

    monkeypatch.setattr(Arbiter, "books", counted)

    async def serve() -> None:
        for _ in range(1000):
            house.fleet.instances["a"].begin()
            house.fleet.instances["a"].end()
            await asyncio.sleep(0.001)

    house.loop.run_until_complete(serve())
    assert len(made) <= 4


def test_a_large_fleet_rests_between_looks(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while somebody waits, and many answers end: the others' requests are not held up by looking."""
    monkeypatch.setattr(arbiter, "FEW", 1)
    monkeypatch.setattr(arbiter, "LOOK_PAUSE", 0.05)
    house = build([tenant("a", 30), tenant("b", 60), tenant("c", 30)], ROOM_FOR_ONE, asleep=["b"])
    busy, waiting = house.ask("a"), house.ask("b", lasts=0.0)
    looks: list[None] = []
    look = Arbiter._look

    def counted(arbiter: Arbiter) -> None:
        looks.append(None)
        look(arbiter)

    monkeypatch.setattr(Arbiter, "_look", counted)
    for _ in range(100):
        house.ask("c", lasts=0.0)
        house.loop.pass_time(0.01)
    assert waiting.phase == "waiting" and len(looks) <= 8
    busy.finish()
    house.loop.pass_time(5)
    assert served(busy, waiting)


# -- by hand -----------------------------------------------------------------------------------------------------


def test_all_replicas_woken_by_hand_wake(build: Build) -> None:
    """Each is waited for on its own."""
    twins = [tenant(f"twin{place}", 20, model="twin", gpus=[place]) for place in (0, 1)]
    house = build(twins, {0: 60, 1: 60}, asleep=["twin0", "twin1"])
    for engine in house.engines.values():
        engine.lasts["wake"] = 1.0
    waking = [house.wake("twin0"), house.wake("twin1")]
    house.loop.pass_time(10)
    assert [one.done() for one in waking] == [True, True]
    assert house.awake == {"twin0", "twin1"}


def test_who_wakes_by_hand_and_leaves_takes_it_from_nobody_else(house: House) -> None:
    """Two ask for the same; one gives up."""
    busy = house.ask("a")
    house.settle()
    first, second = house.wake("b"), house.wake("b")
    house.settle()
    first.cancel()
    house.settle()
    busy.finish()
    house.loop.pass_time(5)
    assert second.done() and second.exception() is None
    assert house.awake == {"b"}


def test_one_that_is_down_cannot_be_woken_by_hand(house: House) -> None:
    """Nor if it goes down while it waits for room. That is told at once, not when time is up."""
    house.engines["b"].crash()
    house.loop.pass_time(10)
    assert house.state("b") is State.FAILED
    waking = house.wake("b")
    house.settle()
    assert waking.done() and isinstance(waking.exception(), NotPossible)


def test_one_that_goes_down_while_it_is_waited_for(house: House) -> None:
    busy = house.ask("a")
    house.settle()
    waking = house.wake("b")
    house.settle()
    house.engines["b"].crash()
    house.loop.pass_time(10)
    assert waking.done() and not isinstance(waking.exception(), DeadlinePassed)
    busy.finish()


def test_a_wake_by_hand_does_not_take_the_room_back_that_is_being_made(house: House) -> None:
    """It waits for its turn: who waited for that room is served, and then it is woken again."""
    busy = house.ask("a")
    cold = house.ask("b", lasts=1.0)
    house.loop.pass_time(3)
    assert house.state("a") is State.DRAINING
    waking = house.wake("a")
    house.settle()
    assert (house.state("a"), waking.done()) == (State.DRAINING, False)
    busy.finish()
    house.loop.pass_time(0.5)
    assert (cold.phase, house.state("a"), waking.done()) == ("in flight", State.ASLEEP, False)
    house.loop.pass_time(5)
    house.check()
    assert served(busy, cold) and house.awake == {"a"}
    assert waking.done() and waking.exception() is None


def test_a_wake_by_hand_where_room_could_not_be_made(house: House) -> None:
    """It never stopped serving, so it is awake."""
    busy = house.ask("a")
    house.ask("b", seconds=3)
    house.loop.pass_time(2.5)
    assert house.state("a") is State.DRAINING
    waking = house.wake("a")
    house.loop.pass_time(2)
    assert waking.done() and waking.exception() is None
    assert house.state("a") is State.READY and busy.phase == "in flight"


# -- more awake than should be -----------------------------------------------------------------------------------

EITHER = {"either": {"members": ["a", "b"], "exclusive": True}}


def somebody_wakes(house: House, name: str) -> None:
    """At the engine itself; the fleet sees it at its next look."""
    house.engines[name].asleep, house.engines[name].astray = False, True


def why_left(house: House) -> list[tuple[str, str]]:
    return [(event.instance, event.cause) for event in house.told if event.what is Happened.EVICTED]


def test_two_of_an_exclusive_group_found_awake(build: Build) -> None:
    """At the start. One of them leaves as soon as it may, and the other one serves on."""
    house = build([tenant("a", 20), tenant("b", 20)], ROOM_FOR_ONE, groups=EITHER)
    for engine in house.engines.values():
        engine.astray = True
    house.loop.pass_time(5)
    house.check()
    assert len(house.awake) == 1
    ((left, cause),) = why_left(house)
    assert cause == f"{({'a', 'b'} - {left}).pop()} is awake, and one of them may be"


def test_one_of_an_exclusive_group_woken_from_outside(build: Build) -> None:
    """Beside one that is busy. The idle one leaves; its next request waits for the other one."""
    house = build([tenant("a", 20), tenant("b", 20)], ROOM_FOR_ONE, groups=EITHER, asleep=["b"])
    busy = house.ask("a")
    somebody_wakes(house, "b")
    house.loop.pass_time(15)
    house.check()
    assert house.awake == {"a"} and why_left(house) == [("b", "a is awake, and one of them may be")]
    busy.finish()
    assert served(ask_and_wait(house, "b"))


def test_who_is_asked_while_it_leaves_its_group_serves_first(build: Build) -> None:
    """It is not drained for nobody: a request calls that off, and it leaves once it is idle."""
    house = build([tenant("a", 20), tenant("b", 20)], ROOM_FOR_ONE, groups=EITHER, asleep=["b"])
    busy = house.ask("a")
    somebody_wakes(house, "b")
    held = house.engines["b"].hold("busy")
    house.loop.pass_time(15)
    assert held.reached.is_set() and house.state("b") is State.DRAINING
    asking = house.ask("b", lasts=1.0)
    house.settle()
    held.go.set()
    house.loop.pass_time(0.5)
    assert asking.phase == "in flight"
    house.loop.pass_time(10)
    assert served(asking) and busy.phase == "in flight" and house.awake == {"a"}


def test_more_is_woken_from_outside_than_fits(house: House) -> None:
    """It is put right, and told."""
    house.engines["a"].astray = True
    somebody_wakes(house, "b")
    house.loop.pass_time(15)
    house.check()
    assert house.over() == {} and len(house.awake) == 1
    ((_, cause),) = why_left(house)
    assert cause == "more is held than there is"


def test_one_that_sleeps_is_stopped_and_nobody_leaves_for_that(build: Build) -> None:
    """It takes no more while its process ends than it did asleep."""
    house = build([tenant("a", 60), launched(1, "b", 60)], ROOM_FOR_ONE, asleep=["b"])
    house.engines["b"].lasts["stop"] = 5.0
    stopping = house.stop("b")
    for _ in range(10):
        house.loop.pass_time(1)
        house.check()
    assert stopping.done() and house.state("b") is State.STOPPED
    assert house.fleet.instances["a"].sleeps[EVICTED] == 0


# -- other settings ----------------------------------------------------------------------------------------------


def test_who_waits_for_room_has_it_when_there_is_more(house: House) -> None:
    """The YAML says so, and the gateway has not been started anew."""
    busy, waiting = house.ask("a"), house.ask("b", lasts=0.0)
    house.loop.pass_time(1)
    assert waiting.phase == "waiting"
    house.sections["gpus"] = {0: {"memory_gib": 160}}
    house.apply()
    house.loop.pass_time(0.5)
    house.check()
    assert served(waiting) and busy.phase == "in flight"


def test_where_there_is_less_idle_ones_leave(build: Build) -> None:
    house = build([tenant("a", 30), tenant("b", 30)], ROOM_FOR_ONE)
    for engine in house.engines.values():
        engine.astray = True
    house.sections["gpus"] = {0: {"memory_gib": 40}}
    house.apply()
    house.loop.pass_time(5)
    house.check()
    assert house.over() == {} and len(house.awake) == 1


def test_a_group_that_is_new_parts(build: Build) -> None:
    house = build([tenant("a", 20), tenant("b", 20)], ROOM_FOR_ONE)
    for engine in house.engines.values():
        engine.astray = True
    house.sections["groups"] = EITHER
    house.apply()
    house.loop.pass_time(5)
    house.check()
    assert len(house.awake) == 1


def test_stopped_by_hand_twice_in_vain_it_is_wanted_as_before(build: Build) -> None:
    """It was busy for too long: it serves on, and is started again should it crash."""
    house = build([launched(1, "a", 60, sleep_manager={"drain_timeout_seconds": 2})], ROOM_FOR_ONE)
    house.ask("a")
    house.settle()
    stops = [house.stop("a")]
    house.loop.pass_time(1)
    stops.append(house.stop("a"))
    house.loop.pass_time(10)
    assert [type(one.exception()) for one in stops] == [Busy, Busy]
    assert house.yard.wishes.kept["a"].wanted is Wanted.RUNNING


def test_one_stopped_by_hand_is_not_woken_for_who_waited_for_it_before(build: Build) -> None:
    """Not even tried: it would be tried again and again. Another replica is."""
    twins = [launched(0, "first", 60, model="twin"), tenant("second", 60, model="twin", gpus=[1])]
    house = build([*twins, tenant("a", 60), tenant("b", 60, gpus=[1])], {0: 80, 1: 80}, asleep=["first", "second"])
    busy = [house.ask("a"), house.ask("b")]
    waits = house.ask("twin", lasts=0.1)
    house.settle()
    house.stop("first")
    house.settle()
    assert (house.state("first"), waits.phase) == (State.STOPPED, "waiting")
    for one in busy:
        one.finish()
    house.settle()
    house.loop.pass_time(1)
    assert served(waits)
    assert house.engines["first"].steps.happened == []


def test_stopped_by_hand_by_who_does_not_wait_for_that_it_stays_stopped(build: Build) -> None:
    house = build([launched(1, "a", 60)], ROOM_FOR_ONE)
    busy = house.ask("a")
    house.settle()
    stopping = house.stop("a")
    house.loop.pass_time(1)
    house.lose_interest(stopping)
    house.loop.pass_time(1)
    busy.finish()
    house.loop.pass_time(10)
    house.check()
    assert (house.state("a"), house.fleet.instances["a"].hold) == (State.STOPPED, Hold.BY_HAND)
    assert house.yard.wishes.kept["a"].wanted is Wanted.STOPPED


def test_one_that_fell_ill_asleep_and_is_being_stopped_is_held_to_sleep_at_no_level(build: Build) -> None:
    """Its process is to end: it counts as whatever it may be until then."""
    house = build([launched(0, "a", 60), tenant("b", 60)], ROOM_FOR_ONE, asleep=["a"])
    house.engines["a"].fall_ill()
    house.engines["a"].lasts["stop"] = 5
    restart(house)
    house.ask("b")
    house.loop.pass_time(1)
    house.stop("a")
    house.settle()
    house.check()
    assert (house.state("a"), house.fleet.instances["a"].level) == (State.FALLING_ASLEEP, 0)


# -- a gateway that is killed ------------------------------------------------------------------------------------


def restart(house: House) -> None:
    """Its engines do on what they were told."""
    house.close()
    house.open()


def test_a_sleep_that_outlives_its_gateway(house: House) -> None:
    """The engine still says that it is awake. Nothing is sent there until the call of before is over."""
    held = house.engines["a"].hold("sleep")
    house.put_to_sleep("a")
    house.settle()
    assert held.reached.is_set()
    restart(house)
    asking = house.ask("a", lasts=0.1)
    house.loop.pass_time(20)
    assert (asking.phase, house.state("a")) == ("waiting", State.UNKNOWN)
    held.go.set()
    house.loop.pass_time(5)
    house.check()
    assert served(asking)


def test_a_wake_that_outlives_its_gateway(house: House) -> None:
    """The engine still says that it sleeps. The memory that it takes is given to nobody else."""
    held = house.engines["b"].hold("wake")
    house.ask("b")
    house.settle()
    assert held.reached.is_set() and house.state("a") is State.ASLEEP
    restart(house)
    asking = house.ask("a", lasts=0.1)
    house.loop.pass_time(20)
    house.check()
    assert (asking.phase, house.state("b")) == ("waiting", State.UNKNOWN)
    held.go.set()
    house.loop.pass_time(5)
    house.check()
    assert served(asking)


def test_a_drain_that_is_broken_off_leaves_nothing_for_the_gateway_that_takes_over(house: House) -> None:
    """Its mark is gone before the next one looks for marks: it would put an engine to sleep for nobody."""
    busy = house.engines["a"].hold("busy"), house.engines["a"].hold("busy")
    house.put_to_sleep("a")
    busy[0].go.set()
    house.settle()
    assert busy[1].reached.is_set() and house.marks.kept["a"].phase is Phase.FALLING_ASLEEP
    cleared = house.marks.steps.hold("clear")
    house.loop.call_later(0.5, cleared.go.set)
    house.succeed()
    house.loop.pass_time(5)
    house.check()
    assert (house.state("a"), house.engines["a"].steps.happened) == (State.READY, [])
