"""Whatever happens to instances, engines, sources and wishes: adapters come to where they should be."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.adapters.errors import BeingDeleted, UnknownAdapter
from controller.adapters.phases import Phase
from controller.fleet.adapter_route import AdapterRoute
from controller.fleet.errors import TransitionRefused
from controller.fleet.instance import Instance
from controller.fleet.state import AWAKE, State
from state.adapters import Entry
from tests.controller.adapters.stage import LATER, NEVER, Stage

NAMES, SOURCES = st.sampled_from(["x", "y"]), st.sampled_from(["hf://o/v1", "hf://o/v2"])
INSTANCES = st.sampled_from("abC")
TROUBLES = st.sampled_from([None, None, LATER, NEVER])


class AnyDay(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.stage = Stage(Path(self._folder.name))
        self.wanted: dict[str, tuple[str, int | str]] = {}
        self.in_flight: list[tuple[AdapterRoute, Instance]] = []
        self.told: dict[str, list[Entry]] = {}

    # -- what people do ------------------------------------------------------------------------------------------

    @rule(name=NAMES, source=SOURCES, replicas=st.sampled_from([1, 2, "all"]))
    def put(self, name: str, source: str, replicas: int | str) -> None:
        try:
            self.stage.put(name, source, replicas)
            self.wanted[name] = source, replicas
        except BeingDeleted:
            assert name not in self.wanted

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.wanted.pop(name, None)
        try:
            self.stage.wait_for(self.stage.controller.delete(name))
        except UnknownAdapter:
            pass

    @rule(name=NAMES)
    def request(self, name: str) -> None:
        """What the data path does with one that need not wait."""
        self.stage.wait_for(self._request(name))

    async def _request(self, name: str) -> None:
        route = self.stage.route(name)
        if route is None:
            return
        instance = route.replicas.try_acquire(route.instances, lambda ready: ready[-1])
        if instance is None:
            return
        route.began(instance)
        self.in_flight.append((route, instance))
        assert name in self.stage.engines[instance.name].loaded, f"{instance.name} is asked for {name}"

    @precondition(lambda self: self.in_flight)
    @rule()
    def answer(self) -> None:
        route, instance = self.in_flight.pop(0)
        route.ended(instance)
        instance.end()

    # -- what happens --------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 0.7, 6.0, 90.0]))
    def wait(self, seconds: float) -> None:
        self.stage.run(seconds)

    @rule(instance=INSTANCES)
    def crash(self, instance: str) -> None:
        self.stage.crash(instance)

    @rule(instance=INSTANCES)
    def start(self, instance: str) -> None:
        self.stage.engines[instance].up = True

    @rule(instance=INSTANCES)
    def sleep(self, instance: str) -> None:
        try:
            self.stage.asleep(instance)
        except TransitionRefused:
            pass

    @rule(instance=INSTANCES)
    def wake(self, instance: str) -> None:
        try:
            self.stage.wake(instance)
        except TransitionRefused:
            pass

    @rule(instance=INSTANCES, trouble=TROUBLES)
    def loads_fail(self, instance: str, trouble: str | None) -> None:
        self.stage.engines[instance].trouble = trouble

    @rule(trouble=TROUBLES)
    def fetches_fail(self, trouble: str | None) -> None:
        self.stage.artifacts.trouble = trouble

    @rule()
    def what_sources_hold_changes(self) -> None:
        self.stage.artifacts.edition += "+"

    @rule()
    def gateway_restarts(self) -> None:
        while self.in_flight:
            self.answer()
        self.stage.shut()
        self.stage.open()

    # -- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def only_instances_that_have_it_are_routed_to(self) -> None:
        for name in self.stage.controller.records:
            route = self.stage.route(name)
            assert route is not None
            for instance in route.instances:
                assert instance.state is not State.READY or name in self.stage.engines[instance.name].loaded

    @invariant()
    def history_only_grows(self) -> None:
        for name, before in self.told.items():
            now = self.stage.store.told.get(name)
            assert now is None or now[: len(before)] == before or before[0] not in now, name
        self.told = {name: list(entries) for name, entries in self.stage.store.told.items()}

    @invariant()
    def no_engine_was_told_what_it_cannot_do(self) -> None:
        assert [engine.faults for engine in self.stage.engines.values()] == [[], [], []]

    def teardown(self) -> None:
        """Everything is mended: now it must come to what is wanted."""
        try:
            self._converges()
        finally:
            self.stage.close()
            self._folder.cleanup()

    def _converges(self) -> None:
        stage = self.stage
        while self.in_flight:
            self.answer()
        stage.artifacts.trouble = None
        for name, engine in stage.engines.items():
            engine.up, engine.trouble = True, None
            if stage.instance(name).state not in AWAKE:
                self.wake(name)
        for name, (source, replicas) in self.wanted.items():
            stage.put(name, source, replicas)
        stage.run(700)
        assert stage.controller.records.keys() == self.wanted.keys()
        for name, (source, replicas) in self.wanted.items():
            record = stage.controller.get(name)
            having = {one: engine.loaded[name] for one, engine in stage.engines.items() if name in engine.loaded}
            assert record.phase is Phase.RUNNING
            assert len(record.route.instances) == (3 if replicas == "all" else replicas), (name, having)
            assert {having[instance.name] for instance in record.route.instances} == {
                stage.path(name, source) + stage.artifacts.edition
            }
        stray = [name for engine in stage.engines.values() for name in engine.loaded if name not in self.wanted]
        assert stray == []


TestAnyDay = AnyDay.TestCase
TestAnyDay.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
)
