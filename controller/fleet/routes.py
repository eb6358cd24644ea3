"""From the name a client uses to the instances that can serve it, and what each of them calls it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from controller.fleet.admission import Act, decide
from controller.fleet.instance import Instance
from controller.fleet.members import Members
from controller.fleet.state import AWAKE, SLEEPING, State
from controller.fleet.transitions import Transitions
from controller.fleet.waker import AtOnce, Waker

Choose = Callable[[Sequence[Instance]], Instance]
"""Picks one of the replicas that are ready."""

BUSY = 8
"""Requests in flight on the replica chosen, at which another that sleeps is woken to help."""


class Replicas:
    """All instances of one model."""

    def __init__(self, model: str, transitions: Sequence[Transitions]) -> None:
        self.model = model
        self._transitions = {one.instance: one for one in transitions}
        self.instances = tuple(self._transitions)
        self.waker: Waker = AtOnce({one.instance.name: one for one in transitions})
        self.waiting = 0
        self._changed = asyncio.Event()
        self._ready: tuple[Instance, ...] = ()
        for instance in self.instances:
            instance.watchers.append(self.notify)
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
        self._transitions[instance].observe_soon()

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

        ``deadline`` is on the monotonic clock. Raises ``Unavailable``.
        """
        self.waiting += 1
        try:
            return await self._acquire(among, choose, deadline)
        finally:
            self.waiting -= 1
            if not self.waiting:
                self.waker.unwant(self.model)

    async def _acquire(self, among: Sequence[Instance], choose: Choose, deadline: float) -> Instance:
        while True:
            changed = self._changed
            if isinstance(among, Members):
                among.check()
            now = time.monotonic()
            decision = decide(self.model, [instance.view(now) for instance in among], now, deadline)
            chosen = [among[index] for index in decision.replicas]
            if decision.act is Act.SERVE:
                return _begin(choose(_sound(chosen)))
            if decision.act is Act.CALL_OFF:
                chosen[0].call_off()
                continue
            if decision.act is Act.LOOK:
                for instance in chosen:
                    self._transitions[instance].settle_soon()
            else:
                self.waker.want(self.model, among, chosen if decision.act is Act.WAKE else ())
            await _wait_until(changed, min(deadline, decision.until) - now)

    def _wake_another(self, among: Sequence[Instance]) -> None:
        if any(instance.state is State.WAKING for instance in among):
            return
        now = time.monotonic()
        views = [(instance, instance.view(now)) for instance in among if instance.state is State.ASLEEP]
        due = [instance for instance, view in views if view.wakes_on_request and view.wake_at <= now]
        if due:
            self.waker.help(due)

    def notify(self) -> None:
        """Have those who wait look again."""
        self._ready = tuple(_sound([one for one in self.instances if one.state is State.READY]))
        self._changed.set()
        self._changed = asyncio.Event()


class Route:
    """One name. ``rename``: instance -> the name it must be asked for, None when the client's own is right."""

    def __init__(
        self, name: str, replicas: Replicas, rename: Mapping[Instance, str | None], parent: str | None
    ) -> None:
        self.name = name
        self.replicas = replicas
        self.rename = rename
        self.parent = parent
        all_of_them = len(rename) == len(replicas.instances)
        self.instances: Sequence[Instance] = replicas.instances if all_of_them else tuple(rename)

    @property
    def model(self) -> str:
        return self.replicas.model

    def without(self, candidates: Sequence[Instance], gone: Instance) -> Sequence[Instance]:
        """``candidates`` but one."""
        return tuple(instance for instance in candidates if instance is not gone)

    def began(self, instance: Instance) -> None:
        """One of its requests is in flight on ``instance``, until it has ``ended``."""

    def ended(self, instance: Instance) -> None: ...


def routes_of(replicas: Replicas) -> dict[str, Route]:
    """Every name of a model, and the adapters its engines load at start."""
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
    return {name: Route(name, replicas, names[name], parents[name]) for name in names}


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
