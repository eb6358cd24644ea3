"""Since when each instance is up. Asleep is up; a wake does not start the clock again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from weakref import WeakKeyDictionary

from controller.fleet.instance import Instance
from controller.fleet.state import AWAKE, SLEEPING, State

UP = AWAKE | SLEEPING


class Roster:
    """``changed`` is told, at once, of an instance that has entered another state, or joins."""

    def __init__(self, changed: Callable[[Instance], None]) -> None:
        self._changed = changed
        self._states: WeakKeyDictionary[Instance, State] = WeakKeyDictionary()
        self._since: WeakKeyDictionary[Instance, float] = WeakKeyDictionary()
        self.falls: WeakKeyDictionary[Instance, int] = WeakKeyDictionary()
        """How often each has gone down: what was found out before says nothing after."""

    def enlist(self, instance: Instance) -> None:
        self._states[instance], self.falls[instance] = instance.state, 0
        if instance.state in UP:
            self._since[instance] = instance.clock()
        instance.watchers.append(partial(self._see, instance))
        self._changed(instance)

    def up_for(self, instance: Instance) -> float | None:
        """Seconds; None while it is not up."""
        since = self._since.get(instance)
        return None if since is None else instance.clock() - since

    def _see(self, instance: Instance) -> None:
        before, now = self._states[instance], instance.state
        if now is before:
            return
        self._states[instance] = now
        if now not in UP:
            if before in UP:
                self.falls[instance] += 1
            self._since.pop(instance, None)
        elif instance not in self._since:
            self._since[instance] = instance.clock()
        self._changed(instance)
