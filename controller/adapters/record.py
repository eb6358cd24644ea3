"""One adapter as the controller knows it: what is wanted, where it is, and what there is to tell of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from controller.adapters import phases
from controller.adapters.backoff import FRESH, Tries
from controller.adapters.phases import Condition, Phase
from controller.adapters.spec import AdapterSpec
from controller.fleet.adapter_route import AdapterRoute
from runtime.downloads.progress import Progress
from state import adapters as state

log = logging.getLogger(__name__)

NORMAL, WARNING = "Normal", "Warning"
LEVELS = {NORMAL: logging.INFO, WARNING: logging.WARNING}
BY_FILE, BY_API = "yaml", "api"


@dataclass(slots=True)
class Place:
    """What is so on one instance. ``path``: where the engine has it loaded from, None when it has not.

    ``leaving``: it gets no more requests, for it is about to be unloaded. ``lock``: one call to the engine at a time.
    """

    chosen: bool = False
    path: str | None = None
    leaving: bool = False
    tries: Tries = FRESH
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Record:
    """``artifact``: the folder that holds what the spec asks for, None until it is whole. Times are wall time.

    ``looked_at``: when its source was last looked at; None: it is to be, now. ``unread``: why that could not be.
    ``progress``: of what is being fetched.
    ``changed``: it is to be looked at. ``superseded``: what is being fetched is not wanted any more. ``kept``: what is
    written down of it. ``diary``: held while what is untold is written, or read together with what is written.
    """

    def __init__(
        self, name: str, origin: str, spec: AdapterSpec, route: AdapterRoute, wall: Callable[[], float]
    ) -> None:
        self.name = name
        self.origin = origin
        self.spec = spec
        self.route = route
        self.generation = 1
        self.created_at = wall()
        self.phase = Phase.PENDING
        self.conditions: tuple[Condition, ...] = ()
        self.artifact: str | None = None
        self.looked_at: float | None = wall()
        self.unread = ""
        self.progress: Progress | None = None
        self.places: dict[str, Place] = {}
        self.kept: state.AdapterState | None = None
        self.changed = asyncio.Event()
        self.superseded = asyncio.Event()
        self.diary = asyncio.Lock()
        self.untold_history: list[state.Entry] = []
        self.untold_events: list[state.Entry] = []
        self._wall = wall

    @property
    def deleting(self) -> bool:
        return self.phase is Phase.DELETING

    @property
    def chosen(self) -> list[str]:
        return [name for name, place in self.places.items() if place.chosen]

    @property
    def loaded(self) -> list[str]:
        return [name for name, place in self.places.items() if place.path is not None]

    def place(self, instance: str) -> Place:
        return self.places.setdefault(instance, Place())

    def begin(self) -> None:
        """It is new, or starts afresh with another spec."""
        self.untold_history.append(
            state.Entry(self._wall(), Phase.PENDING.value, "ModelAdapterPending", "Starting reconciliation")
        )
        self.phase = Phase.PENDING
        self.say(phases.starting())

    def enter(self, phase: Phase, reason: str, message: str) -> None:
        """Go to ``phase`` and note the way; nothing happens if it is there."""
        for one in phases.path(self.phase, phase):
            self.phase = one
            log.info("the adapter %s is %s", self.name, one)
            self.untold_history.append(state.Entry(self._wall(), one.value, reason, message))

    def say(self, condition: Condition) -> None:
        self.conditions = phases.with_condition(self.conditions, condition, self._wall())

    def tell(self, type: str, reason: str, message: str) -> None:
        """An event; it is in the log, too."""
        log.log(LEVELS[type], "the adapter %s: %s: %s", self.name, reason, message)
        self.untold_events.append(state.Entry(self._wall(), type, reason, message))

    def kick(self) -> None:
        """Have it looked at now."""
        self.changed.set()

    def is_stale(self, after: float | None) -> bool:
        """Whether its source is to be looked at again: somebody wants it, or that was ``after`` seconds ago."""
        if self.looked_at is None:
            return True
        return after is not None and self._wall() - self.looked_at >= after

    def watch(self, progress: Progress) -> None:
        self.progress = progress

    def forgive(self, instance: str | None = None) -> bool:
        """Forget what failed, on one instance or on all. Whether there was anything."""
        places = [self.place(instance)] if instance else list(self.places.values())
        failed = [place for place in places if place.tries != FRESH]
        for place in failed:
            place.tries = FRESH
        return bool(failed)

    def state(self) -> state.AdapterState:
        return state.AdapterState(
            name=self.name,
            origin=self.origin,
            spec=self.spec.dump(),
            generation=self.generation,
            created_at=self.created_at,
            phase=self.phase.value,
            conditions=[asdict(one) for one in self.conditions],
            artifact=self.artifact,
            places={
                name: state.Place(place.chosen, **asdict(place.tries))
                for name, place in self.places.items()
                if place.chosen or place.tries != FRESH
            },
        )


def restored(kept: state.AdapterState, route: AdapterRoute, wall: Callable[[], float]) -> Record:
    """As an earlier gateway left it. What engines have is not kept: they are asked."""
    record = Record(kept.name, kept.origin, AdapterSpec.model_validate(kept.spec), route, wall)
    record.generation, record.created_at = kept.generation, kept.created_at
    record.phase, record.artifact = Phase(kept.phase), kept.artifact
    record.conditions = tuple(Condition(**one) for one in kept.conditions)
    record.kept = kept
    for name, place in kept.places.items():
        tries = Tries(place.failures, place.next_at, place.problem, place.process)
        record.places[name] = Place(chosen=place.chosen, tries=tries)
    return record
