"""All instances, what is known of each, and the names that lead to them: the live truth of the gateway."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from controller.config.model import Config
from controller.config.model import Instance as InstanceConfig
from controller.fleet.errors import NotPossible
from controller.fleet.finding import Gate
from controller.fleet.instance import Instance
from controller.fleet.journal import Journal
from controller.fleet.keeper import Keeper
from controller.fleet.origin import Origin
from controller.fleet.routes import Replicas, Route, routes_of
from controller.fleet.state import State
from controller.fleet.transitions import Transitions
from controller.fleet.waker import AtOnce, Waker
from controller.fleet.watcher import Watcher
from controller.residency.footprint import Footprint
from runtime.engines.base import Engine
from state.launches import Launches
from state.sleep_marks import Phase, SleepMark, SleepMarks

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_LOOK_SECONDS = 3.0
"""For which clients wait at most when a gateway starts; those of an engine that has said nothing by then wait on."""


class Fleet:
    """``models`` and ``instances`` by their names in the YAML, ``routes`` by every name a client may use.

    These tables stay the same objects while what they hold changes, in one step in which nothing is awaited.
    Times are on ``clock`` (monotonic) unless they say wall.
    """

    def __init__(
        self,
        config: Config,
        connect: Callable[[InstanceConfig], Engine],
        marks: SleepMarks,
        launches: Launches,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.clock = clock
        self.wall = wall
        self.journal = Journal(wall=wall)
        self.transitions: dict[str, Transitions] = {}
        self.waker: Waker = AtOnce(self.transitions)
        self.instances: dict[str, Instance] = {}
        self.models: dict[str, Replicas] = {}
        self.routes: dict[str, Route] = {}
        self.departed: dict[str, Transitions] = {}  # out of the configuration; each may hold its memory still
        self._connect = connect
        self._marks = marks
        self._launches = launches
        self._hosts: list[Callable[[Transitions], None]] = [self._share]
        self.has_predecessor = False
        self._watching: dict[Transitions, asyncio.Task[None]] | None = None
        self._hurried: set[Instance] = set()
        self._held: dict[str, asyncio.Event] = {}
        self.apply(config)

    def apply(self, config: Config, renewed: Collection[str] = (), leaving: Collection[str] = ()) -> list[Transitions]:
        """From now on it is as in ``config``. What stays keeps its state, and whatever is in flight or waits for it.

        ``renewed``: instances whose engine is another, though its address may be the same. ``leaving``: models to which
        no name leads any more. Returns instances that nothing new will reach. They are the caller's: the requests in
        flight on them, and their end.
        """
        self.config = config
        before = dict(self.transitions)
        self.transitions.clear()
        for wanted in config.instances:
            known = None if wanted.name in renewed else before.get(wanted.name)
            self.transitions[wanted.name] = self._keep(wanted, known)
        _become(self.instances, {name: one.instance for name, one in self.transitions.items()})
        self._regroup(config, leaving)
        left = [one for name, one in before.items() if self.transitions.get(name) is not one]
        self.departed.update((one.instance.name, one) for one in left)
        self._take_over()
        for name, one in self.transitions.items():
            if before.get(name) is not one:
                for host in self._hosts:
                    host(one)
        if self._watching is not None:
            for gone in left:
                self._watching.pop(gone).cancel()
            for one in self.transitions.values():
                if one not in self._watching:
                    self._watch(one, self._look_now(one))
        self.waker.renewed()
        return left

    def _take_over(self) -> None:
        """What runs under the name, or at the address, of one that there is now is that one's."""
        urls = {one.config.spec.base_url for one in self.instances.values()}
        for name, gone in list(self.departed.items()):
            if name in self.transitions or gone.instance.config.spec.base_url in urls:
                del self.departed[name]

    def _keep(self, config: InstanceConfig, before: Transitions | None) -> Transitions:
        """The instance there was, if it is the same engine, with other settings."""
        if before is None or not before.instance.config.is_engine_of(config):
            instance = Instance(config, self._connect(config), self.clock, self.wall)
            instance.journal = self.journal
            return Transitions(instance, self._marks, Origin(config, self._launches))
        instance, old = before.instance, before.instance.config
        as_before = (old.spec, old.sleep.wake_timeout_seconds) == (config.spec, config.sleep.wake_timeout_seconds)
        instance.configure(config, instance.engine if as_before else self._connect(config))
        return before

    def _regroup(self, config: Config, leaving: Collection[str]) -> None:
        """Models and routes, once the instances are there. Those of a model that is gone stay as they are, unnamed."""
        models = {}
        for model in config.models:
            members = [self.transitions[one.name] for one in config.instances_of(model)]
            models[model] = replicas = self.models.get(model) or Replicas(model, members, self.clock)
            replicas.waker = self.waker
            replicas.consist_of(members)
        _become(self.models, models)
        routes: dict[str, Route] = {}
        for model, replicas in models.items():
            if model not in leaving:
                routes.update(routes_of(replicas, self.routes))
        for name, route in self.routes.items():
            if not route.configured and route.model not in leaving and models.get(route.model) is route.replicas:
                routes.setdefault(name, route)
        _become(self.routes, routes)

    def count(self, lost: InstanceConfig, mark: SleepMark | None, measured: Footprint | None) -> None:
        """It is out of the configuration since before there was this gateway, and runs. ``mark``: of its sleep."""
        instance = Instance(lost, self._connect(lost), self.clock, self.wall)
        instance.measured = measured
        if mark is None:
            instance.enter_ready()
        elif mark.phase is Phase.ASLEEP:
            instance.enter_asleep(mark)
        else:
            instance.may_be(mark)
        instance.retire()
        self.departed[lost.name] = Transitions(instance, self._marks, Origin(lost, self._launches))

    def forget(self, departed: Transitions) -> None:
        """It holds nothing any more."""
        if self.departed.get(departed.instance.name) is departed:
            del self.departed[departed.instance.name]
            self.waker.renewed()

    def find(self, name: str) -> tuple[str, tuple[Instance, ...]] | None:
        """The instances that ``name`` means: of a model, by any of its names, or one instance."""
        if route := self.routes.get(name):
            return route.model, tuple(route.replicas.instances)
        if instance := self.instances.get(name):
            return instance.config.model, (instance,)
        return None

    def way_of(self, instance: Instance) -> Transitions:
        """How to change its state. Raises ``NotPossible`` if it has left, whoever has its name now."""
        found = self.transitions.get(instance.name)
        if found is None or found.instance is not instance:
            raise NotPossible(f"{instance.name!r} has been taken out of the configuration")
        return found

    def welcome(self, host: Callable[[Transitions], None]) -> None:
        """``host`` is told of every instance there is, and of those that join, before they are looked at."""
        self._hosts.append(host)
        for one in self.transitions.values():
            host(one)

    def _share(self, one: Transitions) -> None:
        """As long as the gateway before this one has not ended, what it has in flight is not known here."""
        one.shared = lambda: self.has_predecessor

    def put_in_charge(self, waker: Waker) -> None:
        """From now on ``waker`` has models woken."""
        self.waker = waker
        for replicas in self.models.values():
            replicas.waker = waker

    def guard(self, gate: Gate) -> None:
        """From now on every instance passes ``gate`` before it is ready."""

        def give(one: Transitions) -> None:
            one.gate = gate

        self.welcome(give)

    def put_in_keeping(self, keeper: Keeper) -> None:
        """From now on ``keeper`` starts and ends processes."""

        def give(one: Transitions) -> None:
            one.keeper = keeper

        self.welcome(give)

    # -- watching ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Keep looking at every instance while open. The first look is over when this opens, unless it takes long."""
        try:
            await self._look_at_all()
            self._watching = {}
            for one in self.transitions.values():
                self._watch(one, self._watcher(one).run())
            yield
        finally:
            tasks = list((self._watching or {}).values())
            self._watching = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(one.aclose() for one in self.transitions.values()))

    async def _look_at_all(self) -> None:
        """What becomes of one that is in the middle of a long step is not worth keeping all the others waiting."""
        try:
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await asyncio.gather(*(self._watcher(one).look() for one in self.transitions.values()))
        except TimeoutError:
            unknown = [name for name, one in self.instances.items() if one.state is State.UNKNOWN]
            log.warning("it takes long to find out about %s", ", ".join(unknown))

    def hold(self, name: str, seconds: float) -> None:
        """Its engine is about to be started anew: requests wait, and nobody looks, until that is ``released``.

        After so many ``seconds`` it is looked at in any case.
        """
        transitions, release = self.transitions[name], asyncio.Event()
        transitions.instance.enter_starting("its engine is about to be started anew")
        self._held[name] = release
        if self._watching is not None:
            self._watching.pop(transitions).cancel()
            self._watch(transitions, self._look_later(transitions, release, seconds))

    def release(self, name: str) -> None:
        """Look at it from now on. One that is not held is looked at already."""
        if (held := self._held.get(name)) is not None:
            held.set()

    async def look_at_stopped(self) -> None:
        """Now rather than when it is their turn: the launcher may have started some since."""
        stopped = [one for one in self.transitions.values() if one.instance.state is State.STOPPED]
        await asyncio.gather(*(one.observe_now() for one in stopped), return_exceptions=True)

    def _watch(self, transitions: Transitions, work: Coroutine[Any, Any, None]) -> None:
        assert self._watching is not None
        self._watching[transitions] = asyncio.create_task(work)

    def _watcher(self, transitions: Transitions) -> Watcher:
        return Watcher(transitions, self.instances.values(), self._hurried)

    async def _look_now(self, transitions: Transitions) -> None:
        watcher = self._watcher(transitions)
        await watcher.look()
        await watcher.run()

    async def _look_later(self, transitions: Transitions, release: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await release.wait()
        except TimeoutError:
            log.warning("%s was not started anew within %g s", transitions.instance.name, seconds)
        finally:
            if self._held.get(transitions.instance.name) is release:
                del self._held[transitions.instance.name]
        await self._look_now(transitions)


def _become(table: dict[str, T], other: Mapping[str, T]) -> None:
    table.clear()
    table.update(other)
