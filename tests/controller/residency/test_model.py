"""Whatever happens to a fleet, in whatever order: nobody reaches a sleeping engine, no memory is given twice, each
request has one end, and nobody waits for ever.

A failure prints the steps that led to it; they replay to the letter, for time is virtual and chance is seeded.
``TORPOR_EXAMPLES=5000`` looks at so many fleets, other ones each time (``--timeout 0``: that takes minutes). To see the
same ones again, set ``PYTHONHASHSEED`` and ``--hypothesis-seed`` for both runs: sets have the order of their hashes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controller.fleet.errors import FleetError
from controller.fleet.instance import EVICTED, Instance
from controller.fleet.state import State
from controller.launch.gateway import GatewayRefused
from controller.residency.memory import HOST, lacks, minus, total
from controller.supervisor.supervisor import RESTART
from router.errors import GatewayError
from tests.controller.fleet.stage import Held
from tests.controller.residency.client import Client
from tests.controller.residency.house import House, launched, tenant
from tests.controller.residency.tenant_engine import TenantEngine

CAPACITY = {0: 80, 1: 60}
FAULTS = ("wake refused", "wake late", "wake late, undone", "sleep late", "sleep late, undone", "start refused")
STEPS = ("sleep", "wake", "busy", "is_asleep", "healthy", "gate")
REFUSALS = FleetError | GatewayError | GatewayRefused
SETTLED = {State.READY, State.ASLEEP, State.STOPPED}
NUMBERS = st.integers(0, 99)
SECONDS = st.sampled_from([0.0, 0.01, 0.5, 3.0, 20.0])
LADDERS: list[dict[str, Any]] = [
    {},
    {"auto_sleep_enabled": True, "idle_threshold_seconds": 5, "check_interval_seconds": 1},
    {"level2_after_seconds": 2, "stop_after_seconds": 9, "check_interval_seconds": 1},
    {
        "auto_sleep_enabled": True,
        "idle_threshold_seconds": 2,
        "check_interval_seconds": 0.5,
        "level2_after_seconds": 3,
        "stop_after_seconds": 4,
    },
]
"""Of idle sleep: none, idle ones sleep, who sleeps is stopped, all of it."""

EDITS: list[dict[str, Any]] = [
    {"engine_args": ["--enable-sleep-mode", "--seed", "1"]},
    {"engine_args": ["--enable-sleep-mode", "--seed", "2"]},
    {"sleep_manager": {"level": 2}},
    {"sleep_manager": {"drain_timeout_seconds": 1}},
    {"sleep_manager": {"wakeup_on_request": False}},
    {"weight": 2},
    {"labels": {"kept": "by"}},
    {"start": "stopped"},
]
"""What may become of an instance. The first two are other commands."""


@st.composite
def tenants(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(3, 7))):
        size, places = draw(st.integers(5, 65)), draw(st.sampled_from([[0], [0], [1], [0, 1]]))
        found.append(draw(one_tenant(number, f"m{number}", size, gpus=places)))
    if draw(st.booleans()):
        for place in (0, 1):
            twin = one_tenant(10 + place, f"twin{place}", draw(st.integers(5, 40)), model="twin", gpus=[place])
            found.append(draw(twin))
    return found


@st.composite
def one_tenant(draw: st.DrawFn, /, number: int, name: str, size: int, **more: Any) -> dict[str, Any]:
    return launched(number, name, size, **more) if draw(st.booleans()) else tenant(name, size, **more)


class Fleet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.house: House
        self.held: list[Held] = []
        self.out: dict[str, dict[str, Any]] = {}  # of the configuration
        self.lasts: list[float] = []
        self.early: list[Client] = []  # those who wait while all of the YAML comes into force

    @initialize(
        some=tenants(),
        later=st.integers(0, 3),
        host=st.sampled_from([None, 200, 60, 10]),
        young=st.sampled_from([0, 10]),
        patience=st.sampled_from([0.5, 15]),
        pinned=st.sampled_from(["", "here", "elsewhere"]),
        exclusive=st.booleans(),
        silent=st.sets(st.integers(0, 5)),
        light=st.sets(st.integers(0, 5), max_size=2),
        cramped=st.booleans(),
        lasts=st.lists(SECONDS, min_size=4, max_size=4),
        ladder=st.sampled_from(LADDERS),
    )
    def move_in(
        self,
        some: list[dict[str, Any]],
        later: int,
        host: int | None,
        young: int,
        patience: float,
        pinned: str,
        exclusive: bool,
        silent: set[int],
        light: set[int],
        cramped: bool,
        lasts: list[float],
        ladder: dict[str, Any],
    ) -> None:
        names = [one["name"] for one in some]
        more: dict[str, Any] = {"residency": {"min_awake_seconds": young, "max_wait_seconds": patience}}
        more["sleep_manager"] = {"min_sleep_duration": 0, "wake_timeout_seconds": 60, **ladder}
        more["models"] = {"m1": {"priority": 2}}
        if pinned:
            some = [*some, launched(20, "pinned", 6) if pinned == "here" else tenant("pinned", 6)]
            more["models"]["pinned"] = {"pinned": True}
        if exclusive:
            more["groups"] = {"either": {"members": ["m0", "m1"], "exclusive": True}}
        quiet = [name for number, name in enumerate(names) if number in silent]
        never_deep = [name for number, name in enumerate(names) if number in light]
        if cramped:  # the weights of one of them fit in the host, and one cannot leave without its own
            some, host, never_deep = [tenant("deep", 50, gpus=[1]), tenant("light", 50), *some], 60, ["light"]
        first = [one for one in some if one["name"] not in names[2 : 2 + later]]
        asleep = [one["name"] for one in first if one["name"] in (*names, "deep")]
        self.out = {one["name"]: one for one in some if one not in first}
        self.lasts = lasts
        self.house = House(first, CAPACITY, host=host, silent=quiet, light=never_deep, asleep=asleep, **more)
        self._set_pace()

    def _set_pace(self) -> None:
        for number, engine in enumerate(self.house.engines.values()):
            names = ("wake", "sleep", "start", "stop")
            engine.lasts = {name: self.lasts[(number + shift) % 4] for shift, name in enumerate(names)}

    def one(self, number: int) -> str:
        """Of those in the configuration."""
        names = list(self.house.fleet.instances)
        return names[number % len(names)]

    def engine(self, number: int) -> TenantEngine:
        engines = list(self.house.engines.values())
        return engines[number % len(engines)]

    def client(self, number: int) -> Client | None:
        there = [one for one in self.house.clients if not one.outcome]
        return there[number % len(there)] if there else None

    # -- clients -------------------------------------------------------------------------------------------------

    @rule(number=NUMBERS, seconds=st.sampled_from([1.0, 30.0, 200.0]), lasts=st.sampled_from([None, 0.0, 2.0]))
    def ask(self, number: int, seconds: float, lasts: float | None) -> None:
        models = [model for model in self.house.fleet.models if model in self.house.fleet.routes]
        if models:  # to one that is on its way out no name leads
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
    def stop(self, number: int) -> None:
        self.house.stop(self.one(number))

    @rule(number=NUMBERS)
    def start(self, number: int) -> None:
        self.house.start(self.one(number))

    @rule(number=NUMBERS)
    def lose_interest(self, number: int) -> None:
        if asked := self.house.by_hand:
            self.house.lose_interest(asked[number % len(asked)])

    @rule(other=st.booleans())
    def restart(self, other: bool) -> None:
        """``other``: with the YAML as it is to be."""
        self.house.close()
        if other:
            self.house.write()
        self.house.open()
        self._set_pace()

    @rule()
    @precondition(lambda self: len(self.house.elders) < 3)
    def succeed(self) -> None:
        self.house.succeed()

    # -- another YAML --------------------------------------------------------------------------------------------

    @rule(number=NUMBERS)
    @precondition(lambda self: len(self.house.tenants) > 1)
    def take_out(self, number: int) -> None:
        names = list(self.house.tenants)
        name = names[number % len(names)]
        self.out[name] = self.house.tenants.pop(name)

    @rule(number=NUMBERS)
    @precondition(lambda self: bool(self.out))
    def bring_in(self, number: int) -> None:
        names = list(self.out)
        name = names[number % len(names)]
        self.house.tenants[name] = self.out.pop(name)

    @rule(number=NUMBERS, edit=st.sampled_from(EDITS))
    def edit(self, number: int, edit: dict[str, Any]) -> None:
        names = list(self.house.tenants)
        self.house.tenants[names[number % len(names)]].update(edit)

    @rule()
    def apply(self) -> None:
        self.house.apply()
        self._set_pace()

    @rule()
    def roll_out(self) -> None:
        self.house.roll_out()
        self._set_pace()

    # -- what befalls it -----------------------------------------------------------------------------------------

    @rule(number=NUMBERS, step=st.sampled_from(STEPS))
    @precondition(lambda self: len(self.held) < 3)
    def hold(self, number: int, step: str) -> None:
        self.held.append(self.engine(number).hold(step))

    @rule(number=NUMBERS)
    @precondition(lambda self: bool(self.held))
    def let_go(self, number: int) -> None:
        self.held.pop(number % len(self.held)).go.set()

    @rule(number=NUMBERS, fault=st.sampled_from(FAULTS))
    def fault(self, number: int, fault: str) -> None:
        self.engine(number).faults.append(fault)

    @rule(number=NUMBERS)
    def crash(self, number: int) -> None:
        self.engine(number).crash()

    @rule(number=NUMBERS)
    def fall_ill(self, number: int) -> None:
        self.engine(number).fall_ill()

    @rule(number=NUMBERS)
    def come_back(self, number: int) -> None:
        """Well again, or as a new process, if it is not ours to start."""
        engine = self.engine(number)
        if engine.runs or "url" in {**self.house.tenants, **self.out}[engine.name]:
            engine.come_back()

    @rule(number=NUMBERS)
    def somebody_else_starts_it(self, number: int) -> None:
        self.house.start_aside(self.one(number))

    @rule(number=NUMBERS)
    def somebody_else_wakes_it(self, number: int) -> None:
        if self.engine(number).capabilities.tells_sleep:
            self.engine(number).is_woken()

    @rule(number=NUMBERS, level=st.integers(1, 2))
    def somebody_else_puts_it_to_sleep(self, number: int, level: int) -> None:
        if self.engine(number).capabilities.tells_sleep:
            self.engine(number).is_put_to_sleep(level)

    # -- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def all_is_well(self) -> None:
        if hasattr(self, "house"):
            self.house.check()
            for name, one in self.house.fleet.instances.items():
                assert name != "pinned" or one.sleeps[EVICTED] == 0
            unasked = [one.among[0] for one in self.house.arbiter.waiting if one.cause == RESTART]
            assert [one.name for one in unasked if one.name != "pinned" and one.config.sleep.wakeup_on_request] == []

    def teardown(self) -> None:
        if not hasattr(self, "house"):
            return
        try:
            self._calm_down()
            self._promises_hold_again()
            self._everybody_has_an_end()
            self._everything_works()
            if self._is_crowded():
                self._nobody_sleeps_in_the_way()
        finally:
            self.house.demolish()

    def _calm_down(self) -> None:
        """No more faults; answers end; all of the YAML is in force; time passes."""
        house = self.house
        for engine in house.engines.values():
            engine.faults.clear()
            if engine.runs or "url" in {**house.tenants, **self.out}[engine.name]:
                engine.come_back()
        self._let_all_go()
        for client in house.clients:
            client.lasts = 0.1
            if client.phase == "in flight":
                client.finish()
        self.early = [house.ask(model, 300, lasts=0.1) for model in house.fleet.routes]
        house.loop.pass_time(5)
        house.roll_out()
        self._let_pass(self._is_over)  # a stop by hand goes on, though who asked for it has left
        for name, one in house.fleet.instances.items():
            if one.hold:
                house.start(name)
        self._let_pass(self._is_over)
        house.check()

    def _let_pass(self, over: Callable[[], bool]) -> None:
        """Time, for as long as it takes: ten minutes at most."""
        for _ in range(60):
            self.house.loop.pass_time(10)
            if over():
                break

    def _is_over(self) -> bool:
        """What the YAML has lost was too busy to be ended, or was started for who still waited: that is tried again."""
        house = self.house
        strays = house.yard.launched.keys() - {one.name for one in house.config.instances}
        if strays and all(task.done() for task in house.by_hand):
            house.roll_out()
        moves = house.arbiter.leaving or house.arbiter.waiting  # a crashed one may wait for room to come back
        quiet = all(one.state in SETTLED for one in house.fleet.instances.values()) and not moves
        ended = all(one.outcome for one in house.clients) and all(task.done() for task in house.by_hand)
        return quiet and ended and not house.elders and len(house.live.pools) == len(house.fleet.instances)

    def _let_all_go(self) -> None:
        for engine in self.house.engines.values():
            engine.steps.let_all_go()
        while self.held:
            self.held.pop().go.set()

    def _promises_hold_again(self) -> None:
        """Whatever was woken or started at the engines themselves, where those that are too many can sleep."""
        if self._is_crowded():
            return
        assert [place for place in self.house.over() if place != HOST] == []
        awake = {one.config.model for one in self.house.fleet.instances.values() if one.state is State.READY}
        assert [model for model, rivals in self.house.config.rivals.items() if model in awake and awake & rivals] == []

    def _everybody_has_an_end(self) -> None:
        house = self.house
        assert [one.outcomes for one in house.clients if len(one.outcomes) != 1] == []
        for one in self.early:
            possible = self._is_possible(one.model) and not self._is_crowded()
            assert one.outcome != "DeadlinePassed" or not possible, (one.model, one.reason)
        assert [one.name for one in house.instances if one.in_flight] == []
        assert set(house.live.pools) == set(house.fleet.instances.values())
        assert {model: one.in_flight for model, one in house.live.traffic.models.items() if one.in_flight} == {}
        assert house.elders == {}
        assert house.arbiter.leaving == frozenset()
        assert [one for one in house.arbiter.waiting if one.cause != RESTART or not self._is_crowded()] == []
        for task in house.by_hand:
            assert task.done()
            if task.cancelled():
                assert task in house.uninteresting, task
            elif (error := task.exception()) is not None and not isinstance(error, REFUSALS):
                raise error

    def _everything_works(self) -> None:
        """Nothing is wedged: each model that can be served is, whatever happened before."""
        house = self.house
        asked = [house.ask(model, 300, lasts=0.1) for model in house.fleet.models]
        self._let_pass(lambda: all(one.outcome for one in asked))
        house.check()
        for one in asked:
            expected = {"served"} if self._is_possible(one.model) else {"served", "NoRoom"}
            expected |= {"DeadlinePassed"} if self._is_crowded() else set()
            if any(not of.sleep.wakeup_on_request for of in house.config.instances_of(one.model)):
                expected |= {"KeptAsleep"}
            assert one.outcome in expected, (one.model, one.reason)

    def _nobody_sleeps_in_the_way(self) -> None:
        """Models are asked for one after the other. Each is served, if that takes but weights to be dropped.

        Those first that have to find room in the host to leave. The others fall asleep there one after the other.
        """
        house = self.house
        for model in sorted(house.fleet.models, key=lambda model: 2 in self._levels(model)):
            asked = house.ask(model, 150, lasts=0.1)
            self._let_pass(lambda asked=asked: bool(asked.outcome))  # type: ignore[misc]
            house.check()
            for one in house.fleet.models[model].instances:
                assert asked.outcome != "DeadlinePassed" or not self._could_fit(one), (one.name, asked.reason)
                if one.state is State.READY and 2 in one.engine.capabilities.levels:
                    house.put_to_sleep(one.name)
            self._let_pass(self._is_over)

    def _levels(self, model: str) -> set[int]:
        instances = self.house.config.instances_of(model)
        return {level for one in instances for level in self.house.engines[one.name].capabilities.levels}

    def _could_fit(self, asked: Instance) -> bool:
        """Once all sleepers have dropped their weights that can, and then all others have fallen asleep."""
        house, books = self.house, self.house.arbiter.books()
        free = books.free
        for name, one in house.fleet.instances.items():
            figures, held = house.engines[name].footprint, books.held[name]
            levels = one.engine.capabilities.levels
            if one is asked or name == "pinned":
                continue
            if one.state is State.READY:
                free = minus(free, minus(figures.at(levels[-1]), held))
                continue
            may_sink = one.state is State.ASLEEP and one.level == 1 and 2 in levels and not self._has_rivals(one)
            if may_sink and not lacks(minus(figures.awake, held), books.free):
                free[HOST] += held.get(HOST, 0)
        more = minus(house.engines[asked.name].footprint.awake, books.held[asked.name])
        return free[HOST] >= 0 and not lacks(more, free) and not self._has_rivals(asked)

    def _has_rivals(self, instance: Instance) -> bool:
        """Who sleep, too: simpler, and true enough for what could have been."""
        return bool(self.house.config.rivals.get(instance.config.model))

    def _is_crowded(self) -> bool:
        """Whether some can only sleep with their weights in a host that others may have filled."""
        config = self.house.config
        light = [one for one in config.instances if 2 not in self.house.engines[one.name].capabilities.levels]
        return bool(light) and HOST in config.capacity

    def _is_possible(self, model: str) -> bool:
        """Beside all the others asleep, and the pinned one awake."""
        config = self.house.config
        figures = {one.name: one.footprint for one in config.instances if one.footprint}
        for one in config.instances_of(model):
            others = [
                figure.awake if name == "pinned" else figure.asleep[self.house.engines[name].capabilities.levels[-1]]
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
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    stateful_step_count=50 if EXAMPLES else 20,
    phases=(Phase.generate,),  # shrinking takes minutes
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
