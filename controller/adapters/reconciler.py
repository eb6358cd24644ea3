"""Takes one adapter one step nearer to what is wanted of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from controller.adapters import backoff, phases
from controller.adapters.backoff import FRESH
from controller.adapters.failures import retriable
from controller.adapters.ground import Ground
from controller.adapters.loading import MISHAPS, Loading
from controller.adapters.phases import Phase
from controller.adapters.record import NORMAL, WARNING, Record
from controller.adapters.steps import Do, Step, Wanted, next_step
from controller.fleet.instance import Instance
from controller.fleet.state import AWAKE, SLEEPING, State
from runtime import adapters
from runtime.engines.base import NotSupported

log = logging.getLogger(__name__)

DRAIN_SECONDS = 600.0
"""How long an unload waits for the adapter's requests in flight before it goes ahead."""

UNSETTLED = frozenset({State.FALLING_ASLEEP, State.WAKING})

Act = Callable[[Record, Sequence[str]], Awaitable[None]]


class Reconciler:
    def __init__(self, ground: Ground, loading: Loading) -> None:
        self._ground = ground
        self._loading = loading
        self._acts: Mapping[Do, Act] = {
            Do.REMOVE: self._remove,
            Do.FORGET: self._forget,
            Do.RELEASE: self._release,
            Do.CHOOSE: self._choose,
            Do.FETCH: self._fetch,
            Do.LOOK: self._look,
            Do.LOAD: self._load,
            Do.REPLACE: self._replace,
            Do.FAIL: self._fail,
            Do.WAIT: self._wait,
        }

    async def step(self, record: Record) -> Step:
        """Decide, act, and write down what came of it. Raises ``StateError`` when that cannot be written."""
        ground = self._ground
        stale = record.is_stale(ground.fleet.config.adapter_refresh_seconds)
        wanted = Wanted(record.spec.replicas, record.spec.scheduler_name, record.artifact, record.deleting, stale)
        step = next_step(wanted, ground.seen(record), ground.wall(), ground.chance)
        await self._acts[step.do](record, step.instances)
        ground.reroute(record)
        if step.do is not Do.FORGET:
            await self.save(record)
        return step

    async def save(self, record: Record) -> None:
        """Raises ``StateError``; what was not written is written the next time."""
        async with record.diary:
            state, history, events = record.state(), tuple(record.untold_history), tuple(record.untold_events)
            if state == record.kept and not history and not events:
                return
            await self._ground.store.put(state, history, events)
            record.kept = state
            del record.untold_history[: len(history)], record.untold_events[: len(events)]

    # -- where ---------------------------------------------------------------------------------------------------

    async def _choose(self, record: Record, instances: Sequence[str]) -> None:
        for name in instances:
            record.place(name).chosen = True
        chosen = record.chosen
        record.tell(NORMAL, "Scheduled", f"ModelAdapter {phases.selection(instances)}")
        if not any(one.type == "Scheduled" and one.status == "False" for one in record.conditions):
            record.say(phases.scheduled(record.name, chosen))
        if record.phase in (Phase.PENDING, Phase.FAILED):
            record.enter(Phase.SCHEDULED, "Scheduled", phases.scheduled(record.name, chosen).message)

    async def _release(self, record: Record, instances: Sequence[str]) -> None:
        place, instance = record.place(instances[0]), self._ground.fleet.instances.get(instances[0])
        place.chosen = False
        if instance is not None and instance.state is State.READY:
            await self._unload_quietly(record, instance)  # an older one may still be there
        if not place.tries.used_up:
            record.tell(WARNING, "AdapterMigrating", f"pod {instances[0]} is gone: the adapter moves to another")
        record.say(phases.rescheduling())

    async def _fail(self, record: Record, _: Sequence[str]) -> None:
        problems = {name: place.tries.problem for name, place in record.places.items() if place.tries.used_up}
        condition = phases.loading_failed(problems)
        if record.phase is not Phase.FAILED:
            record.tell(WARNING, "ModelAdapterLoadingError", condition.message)
        record.say(condition)
        record.enter(Phase.FAILED, condition.reason, condition.message)

    async def _wait(self, record: Record, _: Sequence[str]) -> None:
        self._fall_back(record)
        waits = record.phase in (Phase.PENDING, Phase.SCHEDULED, Phase.LOADING)
        if waits and (why := self._ground.obstacle(record)):
            record.say(phases.unavailable(why))

    def _fall_back(self, record: Record) -> None:
        """The phase of one that nobody has. One whose instances sleep runs all the same: a request wakes them."""
        chosen = [one for name in record.chosen if (one := self._ground.fleet.instances.get(name))]
        if record.deleting or record.loaded or any(one.state in SLEEPING for one in chosen):
            return
        served = record.phase in (Phase.BOUND, Phase.RUNNING)
        if served:
            record.say(phases.migrating())
        if not chosen and record.phase is not Phase.PENDING:
            record.enter(Phase.PENDING, "Rescheduling", phases.rescheduling().message)
        elif served:
            record.enter(Phase.SCHEDULED, "AdapterMigrating", phases.migrating().message)

    # -- loading -------------------------------------------------------------------------------------------------

    def _there(self, names: Sequence[str]) -> list[Instance]:
        """As the step was decided all are. While it is taken any may leave, and somebody else have its name."""
        return [self._ground.fleet.instances[name] for name in names]

    async def _fetch(self, record: Record, names: Sequence[str]) -> None:
        wanted, instances = record.spec, self._there(names)
        self._loads(record, f"Fetching {wanted.shown()['artifactURL']}")
        await self.save(record)
        try:
            folder = await self._unless_superseded(record, instances)
        except MISHAPS as error:
            await self._fetch_failed(record, instances, error)
        else:
            if folder is not None and record.spec is wanted:
                record.artifact = folder

    async def _look(self, record: Record, names: Sequence[str]) -> None:
        """Fetch what the source holds by now, if that is something else. If it cannot be, what there is stays."""
        wanted, instances = record.spec, self._there(names)
        try:
            folder = await self._unless_superseded(record, instances)
        except MISHAPS as error:
            if record.unread != str(error):
                record.tell(WARNING, "SourceNotRead", f"What there is stays: {error}")
            record.unread = str(error)
            return
        record.unread = ""
        if folder is None or record.spec is not wanted or folder == record.artifact:
            return
        record.artifact = folder
        record.forgive()
        record.tell(NORMAL, "ArtifactChanged", "The source holds something else now, which takes the old one's place")

    async def _unless_superseded(self, record: Record, instances: Sequence[Instance]) -> str | None:
        """The folder, with an adapter for the base; None when something else is wanted before it is whole."""
        record.superseded.clear()
        record.looked_at = self._ground.wall()
        fetching = asyncio.create_task(self._ground.fetch(record, instances))
        superseded = asyncio.create_task(record.superseded.wait())
        try:
            await asyncio.wait({fetching, superseded}, return_when=asyncio.FIRST_COMPLETED)
            if record.superseded.is_set():
                return None
            folder = await fetching
        finally:
            for task in (fetching, superseded):
                task.cancel()
            await asyncio.gather(fetching, superseded, return_exceptions=True)
            record.progress = None
        base = instances[0].config
        await self._ground.artifacts.check(folder, (base.spec.model, *base.names), None)
        return folder

    async def _fetch_failed(self, record: Record, instances: Sequence[Instance], error: Exception) -> None:
        """It counts as a try on those it was fetched for. What no repetition mends leaves no candidate."""
        for instance in instances:
            await self._loading.failed(record, instance, error)
        if not retriable(error):
            for instance in self._ground.candidates(record):
                place = record.place(instance.name)
                place.tries = backoff.failed(place.tries, self._ground.wall(), str(error), None, retriable=False)

    async def _load(self, record: Record, instances: Sequence[str]) -> None:
        instance = self._ground.fleet.instances[instances[0]]
        self._loads(record, f"Loading on {instance.name}")
        with _kept_awake(instance) as awake:
            if awake:
                await self._loading.put(record, instance)

    async def _replace(self, record: Record, instances: Sequence[str]) -> None:
        """Another artefact in place of the old one. Where it must be unloaded first, its requests wait meanwhile."""
        instance, place = self._ground.fleet.instances[instances[0]], record.place(instances[0])
        if instance.engine.capabilities.replaces_adapters:
            with _kept_awake(instance) as awake:
                if awake:
                    await self._loading.put(record, instance)
            await self._discard_unused(record)
            return
        place.leaving = True
        self._ground.reroute(record)
        try:
            await self._drain(record, instance)
            with _kept_awake(instance) as awake:
                if awake:
                    place.path = None
                    await self._loading.put(record, instance)
        finally:
            place.leaving = False
            self._ground.reroute(record)
        await self._discard_unused(record)

    async def _discard_unused(self, record: Record) -> None:
        used = {one.artifact for one in self._ground.records.values() if one.artifact}
        used |= {place.path for place in record.places.values() if place.path}
        await self._ground.artifacts.discard(record.name, used)

    def _loads(self, record: Record, message: str) -> None:
        if not record.loaded:
            record.enter(Phase.LOADING, "Loading", message)

    # -- unloading -----------------------------------------------------------------------------------------------

    async def _remove(self, record: Record, instances: Sequence[str]) -> None:
        name = instances[0]
        place, instance = record.place(name), self._ground.fleet.instances.get(name)
        place.leaving = True
        self._ground.reroute(record)
        if instance is not None and not place.tries.used_up:
            await self._drain(record, instance)
            if not await self._unload(record, instance) and place.path is not None:
                return
        place.chosen, place.path, place.leaving, place.tries = False, None, False, FRESH
        record.tell(NORMAL, "Unloaded", f"The adapter is not on pod {name} any more")

    async def _unload(self, record: Record, instance: Instance) -> bool:
        """Whether the engine has it no more. One that sleeps keeps it until its gate is passed."""
        with _kept_awake(instance) as awake:
            if not awake:
                if record.place(instance.name).path is not None:
                    self._ground.left_behind.add((instance.name, record.name))
                return True
            async with record.place(instance.name).lock:
                try:
                    await adapters.unload(await self._ground.host(record, instance), record.name)
                except NotSupported:
                    return True
                except MISHAPS as error:
                    await self._loading.failed(record, instance, error)
                    return False
        return True

    async def _unload_quietly(self, record: Record, instance: Instance) -> None:
        with _kept_awake(instance):
            try:
                await adapters.unload(await self._ground.host(record, instance), record.name)
            except MISHAPS as error:
                log.info("the adapter %s may still be on %s: %s", record.name, instance.name, error)

    async def _drain(self, record: Record, instance: Instance) -> None:
        """Wait until its requests are over, and until the instance is awake, asleep or gone."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await record.route.drained(instance)
                while instance.state in UNSETTLED:  # else it is told nothing, and keeps what its gate has given it
                    record.changed.clear()
                    await record.changed.wait()
        except TimeoutError:
            log.warning("%s still has requests for %s, which goes all the same", instance.name, record.name)

    async def _forget(self, record: Record, _: Sequence[str]) -> None:
        ground = self._ground
        record.artifact = None
        await self._discard_unused(record)
        await ground.store.remove(record.name)
        ground.fleet.routes.pop(record.name, None)
        ground.records.pop(record.name, None)


@contextmanager
def _kept_awake(instance: Instance) -> Iterator[bool]:
    """Counted as one more request, so that it is not put to sleep meanwhile. False when it is not awake."""
    if instance.state is State.DRAINING:
        instance.call_off()
    if instance.state not in AWAKE:
        yield False
        return
    instance.begin()
    try:
        yield True
    finally:
        instance.end()
