"""Has one adapter loaded on one instance, and notes what came of it."""

from __future__ import annotations

from controller.adapters import backoff, phases
from controller.adapters.backoff import FRESH
from controller.adapters.credentials import CredentialsUnusable
from controller.adapters.failures import retriable
from controller.adapters.ground import Ground
from controller.adapters.phases import Phase
from controller.adapters.record import NORMAL, WARNING, Record
from controller.fleet.instance import Instance
from runtime import adapters
from runtime.adapters import UnfitAdapter
from runtime.downloads.errors import DownloadError
from runtime.engines.base import EngineError

MISHAPS = (EngineError, UnfitAdapter, DownloadError, CredentialsUnusable)
"""What may go wrong on the way to a loaded adapter, and is told to whoever wants it."""


class Loading:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def put(self, record: Record, instance: Instance, *, afresh: bool = False) -> None:
        """Load what the spec asks for. The engine must stay awake meanwhile. What goes wrong is noted, not raised.

        ``afresh``: also if the engine says that it has it. Files that somebody has deleted are fetched again first.
        """
        place, wanted = record.place(instance.name), record.artifact
        assert wanted is not None
        falls = self._ground.roster.falls[instance]
        if record.spec.is_fetched and not await self._ground.artifacts.is_whole(wanted):
            if record.artifact == wanted:
                record.artifact = None
            record.kick()
            return
        async with place.lock:
            try:
                spec = instance.config.spec
                bases = (spec.model, *instance.config.names)
                await self._ground.artifacts.check(wanted, bases, spec.lora.max_rank)
                engine = await self._ground.host(record, instance)
                await adapters.put(engine, record.name, wanted, afresh=afresh)
                if not place.chosen:  # it was taken away while it was loaded
                    await adapters.unload(engine, record.name)
                    return
            except MISHAPS as error:
                await self.failed(record, instance, error)
                return
        if falls != self._ground.roster.falls[instance]:
            record.kick()  # it went down meanwhile, and the adapter with it
            return
        self.loaded(record, instance, wanted)

    def loaded(self, record: Record, instance: Instance, path: str) -> None:
        """The engine has it: it may be routed to."""
        place, name = record.place(instance.name), record.name
        first = place.path != path
        place.path, place.tries, place.leaving = path, FRESH, False
        if first:
            record.tell(NORMAL, "Loaded", f"Successfully loaded adapter on pod {instance.name}")
        if record.deleting:
            return
        moved = any(one.type == "Scheduled" and one.status == "False" for one in record.conditions)
        if moved:
            record.say(phases.rescheduled(instance.name))
        if record.phase is not Phase.RUNNING:
            record.enter(Phase.BOUND, "Bound", f"Loaded on {instance.name}")
            record.say(phases.bound(name, record.loaded))
        self._ground.reroute(record)
        record.enter(Phase.RUNNING, "ModelAdapterAvailable", phases.ready(name).message)
        record.say(phases.ready(name))

    async def failed(self, record: Record, instance: Instance, error: Exception) -> None:
        """Note one more failure on ``instance``, if it has not left."""
        process = await self._ground.process(instance)
        if not self._ground.has(instance):
            return
        place, again = record.place(instance.name), retriable(error)
        place.tries = backoff.failed(place.tries, self._ground.wall(), str(error), process, retriable=again)
        if not place.tries.used_up:
            record.tell(WARNING, "LoadingError", f"pod {instance.name}: {error}")
        elif again:
            record.tell(WARNING, "MaxRetriesExceeded", f"Max retries exceeded for pod {instance.name}: {error}")
        else:
            record.tell(WARNING, "LoadingFailed", f"pod {instance.name}, which is not tried again: {error}")
        if place.path is None:
            record.say(phases.not_bound(record.name))
        self._ground.reroute(record)
