"""What the adapter controller stands on: the instances as it sees them, and how it reaches each."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence

from controller.adapters.artifacts import Artifacts
from controller.adapters.backoff import FRESH
from controller.adapters.credentials import Credentials, CredentialsUnusable
from controller.adapters.delegate import Delegate, Sidecar
from controller.adapters.placement import Seat
from controller.adapters.record import WARNING, Record
from controller.adapters.roster import Roster
from controller.adapters.selector import selects
from controller.adapters.spec import API_KEY
from controller.adapters.steps import Seen
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.state import AWAKE, SLEEPING
from runtime.engines.base import AdapterHost, Engine
from state.adapters import Adapters

Connect = Callable[[Instance, str], Engine]
"""A client of an engine that asks for another key than the YAML has."""

Beside = Callable[[Instance, str | None], Sidecar | None]
"""The sidecar of an instance, if it has one, which asks its engine with that key, if one is given."""


def key_set(name: str) -> str:
    """The set of credentials that keeps the ``api-key`` of an adapter."""
    return f"adapter.{name}"


class Ground:
    def __init__(
        self,
        fleet: Fleet,
        store: Adapters,
        artifacts: Artifacts,
        credentials: Credentials,
        connect: Connect,
        beside: Beside = lambda instance, key: None,
        *,
        wall: Callable[[], float] = time.time,
        chance: random.Random | None = None,
    ) -> None:
        self.fleet = fleet
        self.store = store
        self.artifacts = artifacts
        self.credentials = credentials
        self.wall = wall
        self.chance = chance or random.Random()
        self.records: dict[str, Record] = {}
        self.left_behind: set[tuple[str, str]] = set()
        """Instance and adapter, of what an engine that slept could not be told to unload."""
        self.roster = Roster(self._changed)
        self._connect = connect
        self._beside = beside
        fleet.welcome(lambda one: self.roster.enlist(one.instance))

    def candidates(self, record: Record) -> list[Instance]:
        """The instances that its spec allows and whose engines take adapters."""
        return [
            instance
            for instance in self.fleet.instances.values()
            if instance.engine.capabilities.adapters
            and selects(record.spec, instance.config.names, instance.config.labels)
        ]

    def obstacle(self, record: Record) -> str:
        """Why no instance can have it; nothing when one may soon."""
        if chosen := [one for name in record.chosen if (one := self.fleet.instances.get(name))]:
            if all(one.state in SLEEPING for one in chosen):
                names = ", ".join(one.name for one in chosen)
                return f"pod {names} is asleep: a request wakes it, and it gets the adapter"
            return ""
        candidates = self.candidates(record)
        if not candidates:
            labels = ", ".join(f"{key}={value}" for key, value in record.spec.pod_selector.match_labels.items())
            return f"no pod of {record.spec.base} takes adapters" + (f" and has the labels {labels}" if labels else "")
        if all(self.roster.up_for(one) is None for one in candidates):
            return f"no pod is up: {', '.join(f'{one.name} is {one.state}' for one in candidates)}"
        return ""

    def seen(self, record: Record) -> list[Seen]:
        """Each instance that it may be on, or is on."""
        candidates = self.candidates(record)
        others = [self.fleet.instances[name] for name in record.places if name in self.fleet.instances]
        return [self._seen(record, one, one in candidates) for one in dict.fromkeys([*candidates, *others])]

    async def host(self, record: Record, instance: Instance) -> AdapterHost:
        """Who loads it there: the sidecar what a sidecar has fetched, else the engine itself.

        Spoken to with the adapter's own key, if it has one. Raises ``CredentialsUnusable``.
        """
        key = await self._key(record)
        engine = instance.engine if key is None else self._connect(instance, key)
        sidecar = self._beside(instance, key) if record.spec.is_fetched else None
        return engine if sidecar is None else Delegate(engine, sidecar)

    async def fetch(self, record: Record, instances: Sequence[Instance]) -> str:
        """The folder with its artefact, for these to load. Raises what ``Artifacts.get`` does."""
        found = [self._beside(instance, None) for instance in instances]
        sidecars = [one for one in found if one is not None]
        return await self.artifacts.get(record.name, record.spec, sidecars, record.watch)

    async def _key(self, record: Record) -> str | None:
        if API_KEY not in record.spec.additional_config:
            return None
        kept = await asyncio.to_thread(self.credentials.read, key_set(record.name))
        if API_KEY not in kept:
            raise CredentialsUnusable(f"the {API_KEY} of {record.name!r} is not kept any more: apply it again")
        return kept[API_KEY]

    def on(self, instance: Instance) -> list[Record]:
        """The adapters that are to be on it."""
        return [one for one in self.records.values() if (place := one.places.get(instance.name)) and place.chosen]

    def has(self, instance: Instance) -> bool:
        """Whether it is in the configuration still; one that left is not whoever has its name now."""
        return self.fleet.instances.get(instance.name) is instance

    async def process(self, instance: Instance) -> str | None:
        """The identity of its process; None where it is not known, or it has left."""
        return await self.fleet.transitions[instance.name].process() if self.has(instance) else None

    async def forgive_restarted(self, instance: Instance, *, came_up: bool) -> None:
        """A new process may well do what the old one would not. Where it is not known, one that ``came_up`` is new."""
        failed = [
            one for one in self.records.values() if (place := one.places.get(instance.name)) and place.tries != FRESH
        ]
        if not failed:
            return
        process = await self.process(instance)
        if not self.has(instance):
            return
        for record in failed:
            before = record.places[instance.name].tries.process
            known = process is not None and before is not None
            if process != before if known else came_up:
                record.forgive(instance.name)
                record.kick()

    def reroute(self, record: Record) -> None:
        """Put into its route just those that have it, and those that will before they are ready."""
        members: dict[Instance, str | None] = {}
        for name, place in record.places.items():
            instance = self.fleet.instances.get(name)
            if instance is None or place.leaving or record.deleting:
                continue
            has_it = place.path is not None if instance.state in AWAKE else _will_have_it(record, name)
            if has_it:
                wanted = instance.engine.adapter_model(record.name)
                members[instance] = None if wanted == record.name else wanted
        gone = any(place.chosen and name not in self.fleet.instances for name, place in record.places.items())
        problem = "" if gone else _problem(record)  # it is about to be loaded elsewhere
        if members != record.route.rename or problem != record.route.problem:
            record.route.put(members, problem)

    def _changed(self, instance: Instance) -> None:
        for record in self.records.values():
            place = record.places.get(instance.name)
            if place is not None:
                if self.roster.up_for(instance) is None and place.path is not None:
                    place.path = None
                    went = f"pod {instance.name} went down, and the adapter with it ({instance.state})"
                    record.tell(WARNING, "AdapterLost", went)
                self.reroute(record)
            record.kick()

    def _seen(self, record: Record, instance: Instance, candidate: bool) -> Seen:
        place, up_for = record.place(instance.name), self.roster.up_for(instance)
        spec = instance.config.spec
        seat = Seat(
            instance.name,
            awake=instance.state in AWAKE,
            adapters=len(self.on(instance)) + len(set(spec.adapters.values())),
            slots=spec.lora.slots,
            most=spec.lora.most,
            load=instance.in_flight,
        )
        up_since = None if up_for is None else self.wall() - up_for
        return Seen(seat, candidate, up_since, place.chosen, place.path, place.tries)


def _will_have_it(record: Record, instance: str) -> bool:
    place = record.places[instance]
    return place.chosen and record.artifact is not None and not place.tries.used_up


def _problem(record: Record) -> str:
    """What a request is told while nobody has it; nothing while it is only moved about, for then requests wait."""
    if record.deleting:
        return f"the adapter {record.name!r} is being deleted"
    if any(place.leaving for place in record.places.values()):
        return ""
    why = next((one.message for one in record.conditions if one.type == "Ready" and one.status == "False"), "")
    if not why:
        why = next((place.tries.problem for place in record.places.values() if place.tries.problem), "")
    return f"the adapter {record.name!r} is not loaded anywhere ({record.phase})" + (f": {why}" if why else "")
