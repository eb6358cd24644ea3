"""Whatever happens to a fleet, in whatever order: nobody reaches a sleeping engine, no memory is given twice, each
request has one end, and nobody waits for ever.

A failure prints the steps that led to it; they replay to the letter, for time is virtual and chance is seeded.
``TORPOR_EXAMPLES=5000`` looks at so many fleets, other ones each time (``--timeout 0``: that takes minutes).
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controller.fleet.errors import FleetError
from controller.fleet.instance import EVICTED
from controller.fleet.state import State
from controller.residency.memory import HOST, total
from tests.controller.fleet.stage import Held
from tests.controller.residency.house import Client, House, tenant

CAPACITY = {0: 80, 1: 60}
FAULTS = ("wake refused", "wake late", "wake late, undone", "sleep late", "sleep late, undone")
STEPS = ("sleep", "wake", "busy", "is_asleep", "healthy")
NUMBERS = st.integers(0, 99)
SECONDS = st.sampled_from([0.0, 0.01, 0.5, 3.0, 20.0])


@st.composite
def tenants(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(3, 6))):
        size, places = draw(st.integers(5, 65)), draw(st.sampled_from([[0], [0], [1], [0, 1]]))
        found.append(tenant(f"m{number}", size, gpus=places))
    if draw(st.booleans()):
        found += [tenant(f"twin{place}", draw(st.integers(5, 40)), model="twin", gpus=[place]) for place in (0, 1)]
    return found


class Fleet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.house: House
        self.held: list[Held] = []

    @initialize(
        some=tenants(),
        host=st.sampled_from([None, 200, 60, 10]),
        young=st.sampled_from([0, 10]),
        patience=st.sampled_from([0.5, 15]),
        pinned=st.booleans(),
        exclusive=st.booleans(),
        silent=st.sets(st.integers(0, 5)),
        lasts=st.lists(SECONDS, min_size=4, max_size=4),
    )
    def move_in(
        self,
        some: list[dict[str, Any]],
        host: int | None,
        young: int,
        patience: float,
        pinned: bool,
        exclusive: bool,
        silent: set[int],
        lasts: list[float],
    ) -> None:
        names = [one["name"] for one in some]
        more: dict[str, Any] = {"residency": {"min_awake_seconds": young, "max_wait_seconds": patience}}
        more["models"] = {"m1": {"priority": 2}}
        if pinned:
            some = [*some, tenant("pinned", 6)]
            more["models"]["pinned"] = {"pinned": True}
        if exclusive:
            more["groups"] = {"either": {"members": ["m0", "m1"], "exclusive": True}}
        quiet = [name for number, name in enumerate(names) if number in silent]
        self.house = House(some, CAPACITY, host=host, silent=quiet, asleep=names, **more)
        for number, engine in enumerate(self.house.engines.values()):
            engine.lasts = {"wake": lasts[number % 4], "sleep": lasts[(number + 1) % 4]}

    def one(self, number: int) -> str:
        names = list(self.house.engines)
        return names[number % len(names)]

    def client(self, number: int) -> Client | None:
        there = [one for one in self.house.clients if not one.outcome]
        return there[number % len(there)] if there else None

    # -- clients -------------------------------------------------------------------------------------------------

    @rule(number=NUMBERS, seconds=st.sampled_from([1.0, 30.0, 200.0]), lasts=st.sampled_from([None, 0.0, 2.0]))
    def ask(self, number: int, seconds: float, lasts: float | None) -> None:
        models = list(self.house.fleet.models)
        self.house.ask(models[number % len(models)], seconds, lasts)

    @rule(number=NUMBERS)
    def answer(self, number: int) -> None:
        if client := self.client(number):
            client.finish()

    @rule(number=NUMBERS)
    def leave(self, number: int) -> None:
        if client := self.client(number):
            client.leave()

    # -- time ----------------------------------------------------------------------------------------------------

    @rule(times=st.integers(1, 30))
    def turn(self, times: int) -> None:
        self.house.loop.turn(times)

    @rule(seconds=st.sampled_from([0.001, 0.3, 1.0, 5.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.house.loop.pass_time(seconds)

    # -- what is done to the fleet -------------------------------------------------------------------------------

    @rule(number=NUMBERS, cause=st.sampled_from(["idle", "manual"]), drain=st.sampled_from([0.0, 5.0]))
    def put_to_sleep(self, number: int, cause: str, drain: float) -> None:
        self.house.put_to_sleep(self.one(number), cause, drain)

    @rule(number=NUMBERS)
    def wake(self, number: int) -> None:
        self.house.wake(self.one(number))

    @rule(number=NUMBERS)
    def lose_interest(self, number: int) -> None:
        if asked := self.house.by_hand:
            asked[number % len(asked)].cancel()

    @rule()
    def restart(self) -> None:
        self._let_all_go()
        self.house.close()
        self.house.open()

    # -- what befalls it -----------------------------------------------------------------------------------------

    @rule(number=NUMBERS, step=st.sampled_from(STEPS))
    @precondition(lambda self: len(self.held) < 3)
    def hold(self, number: int, step: str) -> None:
        self.held.append(self.house.engines[self.one(number)].hold(step))

    @rule(number=NUMBERS)
    @precondition(lambda self: bool(self.held))
    def let_go(self, number: int) -> None:
        self.held.pop(number % len(self.held)).go.set()

    @rule(number=NUMBERS, fault=st.sampled_from(FAULTS))
    def fault(self, number: int, fault: str) -> None:
        self.house.engines[self.one(number)].faults.append(fault)

    @rule(number=NUMBERS)
    def crash(self, number: int) -> None:
        self.house.engines[self.one(number)].crash()

    @rule(number=NUMBERS)
    def fall_ill(self, number: int) -> None:
        self.house.engines[self.one(number)].fall_ill()

    @rule(number=NUMBERS)
    def come_back(self, number: int) -> None:
        self.house.engines[self.one(number)].come_back()

    @rule(number=NUMBERS)
    def somebody_else_wakes_it(self, number: int) -> None:
        engine = self.house.engines[self.one(number)]
        if engine.asleep and engine.capabilities.tells_sleep:
            engine.asleep, engine.astray = False, True

    # -- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def all_is_well(self) -> None:
        if hasattr(self, "house"):
            self.house.check()
            for name, one in self.house.fleet.instances.items():
                assert name != "pinned" or one.sleeps[EVICTED] == 0

    def teardown(self) -> None:
        if not hasattr(self, "house"):
            return
        try:
            self._calm_down()
            self._promises_hold_again()
            self._everybody_has_an_end()
            self._everything_works()
        finally:
            self.house.demolish()

    def _calm_down(self) -> None:
        """No more faults; answers end; time passes."""
        for engine in self.house.engines.values():
            engine.faults.clear()
            engine.come_back()
        self._let_all_go()
        for client in self.house.clients:
            client.lasts = 0.1
            if client.phase == "in flight":
                client.finish()
        self.house.loop.pass_time(600)
        self.house.check()

    def _let_all_go(self) -> None:
        for engine in self.house.engines.values():
            engine.steps.let_all_go()
        while self.held:
            self.held.pop().go.set()

    def _promises_hold_again(self) -> None:
        """Whatever was woken or started at the engines themselves."""
        assert [place for place in self.house.over() if place != HOST] == []
        awake = {one.config.model for one in self.house.fleet.instances.values() if one.state is State.READY}
        assert [model for model, rivals in self.house.config.rivals.items() if model in awake and awake & rivals] == []

    def _everybody_has_an_end(self) -> None:
        assert [one.outcomes for one in self.house.clients if len(one.outcomes) != 1] == []
        assert all(one.in_flight == 0 for one in self.house.fleet.instances.values())
        assert (self.house.arbiter.waiting, self.house.arbiter.leaving) == ((), frozenset())
        for task in self.house.by_hand:
            assert task.done()
            if not task.cancelled() and (error := task.exception()) is not None:
                assert isinstance(error, FleetError), error

    def _everything_works(self) -> None:
        """Nothing is wedged: each model that can be served is, whatever happened before."""
        asked = [self.house.ask(model, 300, lasts=0.1) for model in self.house.fleet.models]
        self.house.loop.pass_time(400)
        self.house.check()
        for one in asked:
            expected = {"served"} if self._is_possible(one.model) else {"served", "NoRoom"}
            assert one.outcome in expected, (one.model, one.reason)

    def _is_possible(self, model: str) -> bool:
        """Beside all the others asleep, and the pinned one awake."""
        config = self.house.config
        figures = {one.name: one.footprint for one in config.instances if one.footprint}
        for one in config.instances_of(model):
            others = [
                figure.awake if name == "pinned" else figure.asleep[2]
                for name, figure in figures.items()
                if name != one.name
            ]
            taken = total([*others, figures[one.name].awake])
            if all(size <= config.capacity.get(place, size) for place, size in taken.items()):
                return True
        return False


EXAMPLES = int(os.environ.get("TORPOR_EXAMPLES", "0"))

TestFleet = Fleet.TestCase
TestFleet.settings = settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    stateful_step_count=50 if EXAMPLES else 20,
    phases=(Phase.generate,),  # shrinking takes minutes
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
