"""All adapters: wanted by whom, kept where they should be, given back to engines that come up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from controller.adapters import phases
from controller.adapters.census import Census
from controller.adapters.credentials import CredentialsUnusable
from controller.adapters.errors import AdapterError, BeingDeleted, Declared, NameTaken, UnknownAdapter, UnknownBase
from controller.adapters.gate import AdapterGate
from controller.adapters.ground import Ground, key_set
from controller.adapters.loading import Loading
from controller.adapters.phases import Phase
from controller.adapters.reconciler import Reconciler
from controller.adapters.record import BY_API, BY_FILE, NORMAL, WARNING, Record, restored
from controller.adapters.spec import ALL, API_KEY, REDACTED, AdapterSpec
from controller.adapters.steps import Do
from controller.fleet.adapter_route import AdapterRoute
from controller.fleet.routes import Replicas
from state.adapters import Entry
from state.database import StateError

log = logging.getLogger(__name__)

RESYNC_SECONDS = 10.0
"""Every adapter is looked at again after so long, whatever happens."""
AGAIN_SECONDS = 2.0
"""After something broke that should not."""


class AdapterController:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._loading = Loading(ground)
        self._reconciler = Reconciler(ground, self._loading)
        self._gate = AdapterGate(ground, self._loading)
        self._census = Census(ground)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._counting: asyncio.Task[None] | None = None
        self._running = False
        self._writing = asyncio.Lock()

    @property
    def records(self) -> Mapping[str, Record]:
        return self._ground.records

    # -- life ----------------------------------------------------------------------------------------------------

    async def restore(self, declared: Mapping[str, AdapterSpec]) -> None:
        """Take up what an earlier gateway left, and what the YAML file says now. Raises ``StateError``.

        Before any instance is looked at: from then on each gets its adapters before it is ready.
        """
        ground = self._ground
        ground.fleet.guard(self._gate)
        for kept in await ground.store.all():
            replicas = self._replicas(kept.spec.get("baseModel") or AdapterSpec.model_validate(kept.spec).base)
            if replicas is None or self._taken(kept.name):
                log.warning(
                    "the adapter %s is left out: its base is not in the YAML file, or its name is taken", kept.name
                )
                continue
            record = restored(kept, AdapterRoute(kept.name, replicas), ground.wall)
            if record.deleting and record.name in declared:
                record.begin()
            if record.artifact is not None and not await ground.artifacts.is_whole(record.artifact):
                record.artifact = None
            self._enlist(record)
        await self.declare(declared)

    async def declare(self, declared: Mapping[str, AdapterSpec]) -> None:
        """From now on the YAML file has these, and perhaps other instances. Raises ``StateError``."""
        ground = self._ground
        for record in ground.records.values():
            replicas = self._replicas(record.spec.base)
            if replicas is not None and record.route.replicas is not replicas:
                self._move(record, replicas)
            record.kick()
        for name, spec in declared.items():
            try:
                await self.put(name, spec, BY_FILE)
            except (AdapterError, CredentialsUnusable) as refused:
                log.error("%s", refused)
        for name, record in list(ground.records.items()):
            if record.origin == BY_FILE and name not in declared and not record.deleting:
                await self._delete(record)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep all adapters as they are wanted while open."""
        self._running = True
        self._counting = asyncio.create_task(self._census.run())
        for record in self.records.values():
            self._begin(record)
        try:
            yield
        finally:
            tasks = self.rest()
            await asyncio.gather(*tasks, return_exceptions=True)

    def rest(self) -> list[asyncio.Task[None]]:
        """Do nothing any more. Returns what has not quite ended."""
        self._running = False
        tasks = [*self._tasks.values(), *([self._counting] if self._counting is not None else [])]
        for task in tasks:
            task.cancel()
        return tasks

    # -- what somebody wants -------------------------------------------------------------------------------------

    async def put(self, name: str, spec: AdapterSpec, origin: str = BY_API) -> Record:
        """Want ``name`` as ``spec`` says. Instances that would not load it are tried afresh.

        Raises ``AdapterError``, ``StateError``, and ``CredentialsUnusable`` when its key cannot be kept.
        """
        async with self._writing:
            return await self._put(name, spec, origin)

    async def _put(self, name: str, spec: AdapterSpec, origin: str) -> Record:
        record = self.records.get(name)
        if record is not None and record.deleting:
            raise BeingDeleted(f"the adapter {name!r} is being deleted; wait until it is gone")
        if origin == BY_API and record is not None and record.origin == BY_FILE:
            raise Declared(f"the adapter {name!r} is in the YAML file: change it there")
        replicas = self._replicas(spec.base)
        if replicas is None:
            known = ", ".join(self._ground.fleet.models)
            raise UnknownBase(f"no instance serves the model {spec.base!r}; the models here are {known}")
        if record is None and self._taken(name):
            raise NameTaken(f"the name {name!r} leads to a model already")
        unused, spec = spec.unused, await self._with_key_kept(name, spec)
        if record is None:
            record = Record(name, origin, spec, AdapterRoute(name, replicas), self._ground.wall)
            record.begin()
            await self._reconciler.save(record)
            self._enlist(record)
            self._begin(record)
        else:
            self._change(record, spec, origin, replicas)
        if unused:
            record.tell(WARNING, "ConfigIgnored", f"additionalConfig: {', '.join(unused)}: without effect")
        await self._reconciler.save(record)
        record.kick()
        return record

    async def delete(self, name: str) -> Record:
        """Begin to take it away everywhere. Raises ``AdapterError`` and ``StateError``."""
        record = self.get(name)
        if record.origin == BY_FILE:
            raise Declared(f"the adapter {name!r} is in the YAML file: remove it there")
        if not record.deleting:
            await self._delete(record)
        return record

    def get(self, name: str) -> Record:
        if name not in self.records:
            raise UnknownAdapter(f"there is no adapter {name!r}")
        return self.records[name]

    async def history(self, record: Record, limit: int) -> Sequence[Entry]:
        """The last phases it entered, oldest first. Raises ``StateError``."""
        async with record.diary:
            return [*await self._ground.store.history(record.name, limit), *record.untold_history][-limit:]

    async def events(self, record: Record, limit: int) -> Sequence[Entry]:
        async with record.diary:
            return [*await self._ground.store.events(record.name, limit), *record.untold_events][-limit:]

    def candidates(self, record: Record) -> list[str]:
        return [instance.name for instance in self._ground.candidates(record)]

    def desired(self, record: Record) -> int:
        wanted = record.spec.replicas
        return len(self.candidates(record)) if wanted == ALL else int(wanted)

    # -- within --------------------------------------------------------------------------------------------------

    async def _delete(self, record: Record) -> None:
        record.forgive()
        record.tell(NORMAL, "Deleting", "The adapter is being deleted")
        record.enter(Phase.DELETING, "Deleted", "Deletion was asked for")
        record.superseded.set()
        self._ground.reroute(record)
        record.kick()
        await self._reconciler.save(record)

    def _change(self, record: Record, spec: AdapterSpec, origin: str, replicas: Replicas) -> None:
        before, record.origin, record.spec = record.spec, origin, spec
        record.looked_at = None
        record.forgive()
        if spec != before:
            record.generation += 1
            record.tell(NORMAL, "SpecChanged", f"Generation {record.generation} is wanted")
        if spec.replicas != before.replicas:
            record.say(phases.scaled(record.name, self.desired(record)))
        if (spec.artifact_url, spec.secret) != (before.artifact_url, before.secret):
            record.artifact = None
            record.superseded.set()
        if record.phase is Phase.FAILED:
            record.begin()
        if record.route.replicas is not replicas:
            self._move(record, replicas)
        self._ground.reroute(record)

    def _move(self, record: Record, replicas: Replicas) -> None:
        """To another base: whoever waits for it on the old one is told."""
        old, record.route = record.route, AdapterRoute(record.name, replicas)
        old.put({}, f"the adapter {record.name!r} has another base now")
        self._ground.fleet.routes[record.name] = record.route

    async def _with_key_kept(self, name: str, spec: AdapterSpec) -> AdapterSpec:
        """Its ``api-key`` goes into the file of credentials, for more can read the database. Others are dropped."""
        key = spec.additional_config.get(API_KEY)
        if key is None:
            return spec.model_copy(update={"additional_config": {}})
        if key != REDACTED:
            await asyncio.to_thread(self._ground.credentials.keep, key_set(name), {API_KEY: key})
        return spec.model_copy(update={"additional_config": {API_KEY: REDACTED}})

    def _replicas(self, base: str) -> Replicas | None:
        route = self._ground.fleet.routes.get(base)
        return route.replicas if route is not None and route.parent is None else None

    def _taken(self, name: str) -> bool:
        return name in self._ground.fleet.routes or name in self._ground.fleet.instances

    def _enlist(self, record: Record) -> None:
        self._ground.records[record.name] = record
        self._ground.fleet.routes[record.name] = record.route
        self._ground.reroute(record)

    def _begin(self, record: Record) -> None:
        if self._running:
            self._tasks[record.name] = asyncio.create_task(self._tend(record), name=f"adapter {record.name}")

    async def _tend(self, record: Record) -> None:
        """One step after the other, as long as there is anything to do; then wait until something changes."""
        while True:
            record.changed.clear()
            pause = 0.0
            try:
                step = await self._reconciler.step(record)
                if step.do is Do.FORGET:
                    self._tasks.pop(record.name, None)
                    return
                if step.do in (Do.WAIT, Do.FAIL):
                    pause = min(max(0.0, step.until - self._ground.wall()), RESYNC_SECONDS)
            except StateError as unwritable:
                log.error("the adapter %s: %s", record.name, unwritable)
                pause = AGAIN_SECONDS
            except Exception:
                log.exception("seeing to the adapter %s broke", record.name)
                pause = AGAIN_SECONDS
            await _changed(record, pause)


async def _changed(record: Record, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await record.changed.wait()
    except TimeoutError:
        pass
