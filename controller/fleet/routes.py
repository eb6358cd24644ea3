"""From the name a client uses to the instances that can serve it, and what each of them calls it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakSet

from controller.fleet.admission import Act, decide
from controller.fleet.instance import Instance
from controller.fleet.members import Members
from controller.fleet.state import AWAKE, SLEEPING, State
from controller.fleet.transitions import Transitions
from controller.fleet.waker import AtOnce, Waker

Choose = Callable[[Sequence[Instance]], Instance]
"""Picks one of the replicas that are ready."""

LOAD = "load"
"""The cause of a wake that helps those that are busy."""

BUSY = 8
"""Requests in flight on the replica chosen, at which another that sleeps is woken to help."""


class Replicas:
    """All instances of one model. Whoever waits for one of ``instances`` sees who joins and who leaves."""

    def __init__(
        self, model: str, transitions: Sequence[Transitions], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.model = model
        self.instances: list[Instance] = []
        self.routes: WeakSet[Route] = WeakSet()
        self._clock = clock
        self.waiting = 0
        self._transitions: dict[Instance, Transitions] = {}
        self._changed = asyncio.Event()
        self._ready: tuple[Instance, ...] = ()
        self.consist_of(transitions)
        self.waker: Waker = AtOnce({one.instance.name: one for one in transitions})

    def consist_of(self, transitions: Sequence[Transitions]) -> None:
        """From now on these."""
        before, self._transitions = self._transitions, {one.instance: one for one in transitions}
        self.instances[:] = self._transitions
        for instance in before.keys() - self._transitions.keys():
            instance.watchers.remove(self.notify)
        for instance in self._transitions.keys() - before.keys():
            instance.watchers.append(self.notify)
        for route in list(self.routes):
            route.follow()
        self.notify()

    @property
    def sleeping(self) -> bool:
        """Asleep, on the way there or back: none of its instances is awake, and one sleeps."""
        states = {instance.state for instance in self.instances}
        return bool(states & SLEEPING) and not states & AWAKE

    @property
    def in_flight(self) -> int:
        return sum(instance.in_flight for instance in self.instances)

    def ready(self, among: Sequence[Instance]) -> Sequence[Instance]:
        """Those that may be asked now. One whose circuit is open is asked only where nobody else is ready."""
        if among is self.instances:  # nearly every request
            return self._ready
        return _sound([instance for instance in among if instance.state is State.READY])

    def look_at(self, instance: Instance) -> None:
        """Find out soon whether it is still there: a request could not reach it."""
        if (transitions := self._transitions.get(instance)) is not None:
            transitions.observe_soon()

    async def find_out(self, instance: Instance) -> None:
        """Find out whether it is still there; what was found is seen in its state."""
        if (transitions := self._transitions.get(instance)) is not None:
            await transitions.observe_now()

    def try_acquire(self, among: Sequence[Instance], choose: Choose) -> Instance | None:
        """Count a request in on one of ``among`` that is ready; None when none is. The caller ``end``s what it gets."""
        ready = self._ready if among is self.instances else self.ready(among)
        if not ready:
            return None
        chosen = choose(ready)
        if len(ready) < len(among) and (chosen.in_flight >= BUSY or not chosen.breaker.admits):
            self._wake_another(among)
        chosen.begin()
        return chosen

    async def acquire(self, among: Sequence[Instance], choose: Choose, deadline: float) -> Instance:
        """As ``try_acquire``, but wait until one is ready, and wake it if need be.

        ``deadline`` is on the fleet's clock. Raises ``Unavailable``.
        """
        self.waiting += 1
        try:
            return await self._acquire(among, choose, deadline)
        finally:
            self.waiting -= 1
            if not self.waiting:  # who came too late is told first what it has waited for
                asyncio.get_running_loop().call_soon(self._nobody_waits)

    def _nobody_waits(self) -> None:
        if not self.waiting:
            self.waker.unwant(self.model)

    async def _acquire(self, among: Sequence[Instance], choose: Choose, deadline: float) -> Instance:
        while True:
            changed = self._changed
            if isinstance(among, Members):
                among.check()
            now = self._clock()
            decision = decide(self.model, [instance.view(now) for instance in among], now, deadline)
            chosen = [among[index] for index in decision.replicas]
            if decision.act is Act.SERVE:
                return _begin(choose(_sound(chosen)))
            if decision.act is Act.CALL_OFF:
                chosen[0].call_off()
                continue
            if decision.act is Act.LOOK:
                for instance in chosen:
                    if (transitions := self._transitions.get(instance)) is not None:  # it has not left
                        transitions.settle_soon()
            else:
                self.waker.want(self.model, among, chosen if decision.act is Act.WAKE else ())
            await _wait_until(changed, min(deadline, decision.until) - now)

    def _wake_another(self, among: Sequence[Instance]) -> None:
        if any(instance.state is State.WAKING for instance in among):
            return
        now = self._clock()
        views = [(instance, instance.view(now)) for instance in among if instance.state is State.ASLEEP]
        due = [instance for instance, view in views if view.wakes_on_request and view.wake_at <= now]
        if due:
            self.waker.help(due, LOAD)

    def notify(self) -> None:
        """Have those who wait look again."""
        self._ready = tuple(_sound([one for one in self.instances if one.state is State.READY]))
        self._changed.set()
        self._changed = asyncio.Event()


class Route:
    """One name. ``rename``: instance -> the name it must be asked for, None when the client's own is right.

    ``configured``: it is there because the YAML names it.
    """

    configured = True

    def __init__(
        self, name: str, replicas: Replicas, rename: Mapping[Instance, str | None], parent: str | None
    ) -> None:
        self.name = name
        self.replicas = replicas
        self.parent = parent
        self.lead_to(rename)
        replicas.routes.add(self)

    def lead_to(self, rename: Mapping[Instance, str | None]) -> None:
        """From now on to these instances."""
        self.rename = rename
        all_of_them = len(rename) == len(self.replicas.instances)
        self.instances: Sequence[Instance] = self.replicas.instances if all_of_them else tuple(rename)

    def follow(self) -> None:
        """The model's instances have changed. Requests may come along even if the YAML does not name it any more."""
        there = self.replicas.instances
        if self.parent is None:
            self.lead_to({instance: _own_name(instance, self.name) for instance in there})
        else:
            self.lead_to({instance: name for instance, name in self.rename.items() if instance in there})

    @property
    def model(self) -> str:
        return self.replicas.model

    def without(self, candidates: Sequence[Instance], gone: Instance) -> Sequence[Instance]:
        """``candidates`` but one."""
        return tuple(instance for instance in candidates if instance is not gone)

    def began(self, instance: Instance) -> None:
        """One of its requests is in flight on ``instance``, until it has ``ended``."""

    def ended(self, instance: Instance) -> None: ...


def routes_of(replicas: Replicas, before: Mapping[str, Route] | None = None) -> dict[str, Route]:
    """Every name of a model, and the adapters its engines load at start.

    ``before``: the routes there were. Those that stay are kept, for requests that wait hold on to them.
    """
    names: dict[str, dict[Instance, str | None]] = {}
    parents: dict[str, str | None] = {}
    for instance in replicas.instances:
        spec = instance.config.spec
        for name in instance.config.names:
            parents[name] = None
        for adapter, wanted in spec.adapters.items():
            for name in {adapter, wanted}:  # the engine's own name for it is understood too
                names.setdefault(name, {})[instance] = None if name == wanted else wanted
                parents.setdefault(name, replicas.model)
    for name, parent in parents.items():
        if parent is None:  # any replica serves any of the model's names
            names[name] = {instance: _own_name(instance, name) for instance in replicas.instances}
    return {name: _route(name, replicas, names[name], parents[name], (before or {}).get(name)) for name in names}


def _route(
    name: str, replicas: Replicas, rename: Mapping[Instance, str | None], parent: str | None, before: Route | None
) -> Route:
    if before is None or (before.replicas, before.parent) != (replicas, parent):
        return Route(name, replicas, rename, parent)
    before.lead_to(rename)
    return before


def _own_name(instance: Instance, name: str) -> str | None:
    spec = instance.config.spec
    return None if name in spec.served_names else spec.engine_name


def _sound(ready: Sequence[Instance]) -> Sequence[Instance]:
    """Those whose circuit is not open; all of them where it is open everywhere: an answer is still possible."""
    return [instance for instance in ready if instance.breaker.admits] or ready


def _begin(instance: Instance) -> Instance:
    instance.begin()
    return instance


async def _wait_until(changed: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await changed.wait()
    except TimeoutError:
        pass
