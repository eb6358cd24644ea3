"""The whole controller over engines that are fakes, in a time that passes as fast as nothing happens.

stage = Stage()
stage.put("sql", "hf://o/v1")
stage.run(10)                        # ten seconds, at once
assert stage.engines["a"].loaded == {"sql": stage.path("sql", "hf://o/v1")}
stage.close()
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from controller.adapters.artifacts import Artifacts
from controller.adapters.controller import AdapterController
from controller.adapters.credentials import Credentials
from controller.adapters.delegate import Sidecar
from controller.adapters.ground import Ground
from controller.adapters.spec import AdapterSpec
from controller.config.load import load
from controller.config.model import Config
from controller.config.model import Instance as InstanceConfig
from controller.fleet.adapter_route import AdapterRoute
from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from runtime.downloads.errors import AccessDenied, DownloadError, SourceUnreachable
from runtime.downloads.fetch import Artifact
from runtime.downloads.progress import OnProgress, Progress, ignore
from runtime.engines.base import AdapterSeen, AlreadyLoaded, Engine, EngineRefused, EngineUnreachable, NotLoaded, Sight
from runtime.engines.spec import Capabilities
from runtime.settings import Settings
from state.adapters import Adapters, AdapterState, Entry
from state.launches import Launch, Launches
from state.sleep_marks import SleepMark, SleepMarks

T = TypeVar("T")

EPOCH = 1_700_000_000.0
LATER, NEVER = "later", "never"
"""How loading and fetching go wrong: in a way that may pass, or for good."""


class _Selector(selectors.DefaultSelector):
    """Never waits: the time it should have waited is over at once."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("everything waits, and nothing will ever happen")
        self.passed += max(0.0, timeout)
        return super().select(0)


class Time(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.clock = _Selector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.passed


class FakeEngine:
    """``replaces``: as vLLM does. ``trouble``: what comes of the next loads. ``faults``: what it was told and never
    should have been.
    """

    def __init__(self, name: str, *, replaces: bool) -> None:
        self.name = name
        self.capabilities = Capabilities(sleep=True, tells_sleep=True, adapters=True, replaces_adapters=replaces)
        self.up = True
        self.asleep = False
        self.loaded: dict[str, str] = {}
        self.trouble: str | None = None
        self.faults: list[str] = []
        self.loads = 0

    async def healthy(self) -> bool | None:
        return self.up

    async def busy(self) -> int | None:
        self._check("busy")
        return 0

    async def pulse(self) -> float | None:
        return None

    async def sleep(self, level: int) -> None:
        self._check("sleep")
        self.asleep = True

    async def wake(self, level: int | None) -> None:
        self._check("wake")
        self.asleep = False

    async def is_asleep(self) -> bool | None:
        self._check("is_asleep")
        return self.asleep

    async def look(self) -> Sight:
        return Sight(self.up, self.asleep if self.up else None)

    def adapter_model(self, name: str) -> str:
        return name if self.capabilities.replaces_adapters else f"base:{name}"

    async def bases(self) -> tuple[str, ...]:
        return ("base",)

    async def adapters(self) -> Mapping[str, AdapterSeen]:
        self._check("list")
        return {name: AdapterSeen(path, "base") for name, path in self.loaded.items()}

    async def load_adapter(self, name: str, path: str, *, replace: bool = False) -> str:
        self.loads += 1
        self._awake(f"load {name}")
        await asyncio.sleep(0.2)
        self._awake(f"load {name}")
        if self.trouble == LATER:
            raise EngineRefused(self.name, "load", 503, "Service Unavailable")
        if self.trouble == NEVER:
            raise EngineRefused(self.name, "load", 401, "Unauthorized")
        if name in self.loaded and not replace:
            raise AlreadyLoaded(self.name, "load", 400, "already loaded")
        self.loaded[name] = path
        return "Success"

    async def unload_adapter(self, name: str) -> str:
        self._awake(f"unload {name}")
        if name not in self.loaded:
            raise NotLoaded(self.name, "unload", 404, "cannot be found")
        del self.loaded[name]
        return "Success"

    async def metrics(self) -> str:
        return ""

    def crash(self) -> None:
        self.up, self.asleep = False, False
        self.loaded.clear()

    def _check(self, call: str) -> None:
        if not self.up:
            raise EngineUnreachable(self.name, call, "connection refused")

    def _awake(self, call: str) -> None:
        self._check(call)
        if self.asleep:
            self.faults.append(f"{call} while it sleeps")


class FakeArtifacts(Artifacts):
    """Folders that exist in name only. ``trouble``: what comes of the next fetches. ``edition``: what sources hold."""

    def __init__(self) -> None:
        super().__init__(Path("/adapters"), _fetch_nothing, Credentials(Path("/nowhere"), {}), Settings())
        self.trouble: str | None = None
        self.whole: set[str] = set()
        self.edition = ""
        self.fetches = 0

    async def get(
        self, name: str, spec: AdapterSpec, sidecars: Sequence[Sidecar] = (), on_progress: OnProgress = ignore
    ) -> str:
        self.fetches += 1
        on_progress(Progress(5, 10, 0, 1))
        await asyncio.sleep(0.5)
        if self.trouble is not None:
            raise {LATER: SourceUnreachable, NEVER: AccessDenied}[self.trouble]("the source says no")
        folder = _folder_of(name, spec.artifact_url) + self.edition
        self.whole.add(folder)
        return folder

    async def check(self, folder: str, bases: Sequence[str], max_rank: int | None) -> None:
        assert folder in self.whole, f"{folder} is loaded, and is not there"

    async def is_whole(self, folder: str) -> bool:
        return folder in self.whole

    async def discard(self, name: str, used: Collection[str]) -> None:
        self.whole -= {one for one in self.whole if Path(one).parent.name == name and one not in used}


class FakeStore(Adapters):
    """Kept in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, AdapterState] = {}
        self.told: dict[str, list[Entry]] = {}
        self.happened: dict[str, list[Entry]] = {}

    async def all(self) -> Sequence[AdapterState]:
        return list(self.kept.values())

    async def put(self, state: AdapterState, history: Sequence[Entry] = (), events: Sequence[Entry] = ()) -> None:
        await asyncio.sleep(0.01)
        self.kept[state.name] = state
        self.told.setdefault(state.name, []).extend(history)
        self.happened.setdefault(state.name, []).extend(events)

    async def remove(self, name: str) -> None:
        for one in (self.kept, self.told, self.happened):
            one.pop(name, None)

    async def history(self, name: str, limit: int) -> Sequence[Entry]:
        return self.told.get(name, [])[-limit:]

    async def events(self, name: str, limit: int) -> Sequence[Entry]:
        return self.happened.get(name, [])[-limit:]


class _Marks(SleepMarks):
    def __init__(self) -> None:
        self.kept: dict[str, SleepMark] = {}

    async def all(self) -> Mapping[str, SleepMark]:
        return dict(self.kept)

    async def put(self, mark: SleepMark) -> None:
        self.kept[mark.instance] = mark

    async def clear(self, instance: str) -> None:
        self.kept.pop(instance, None)


class _Launches(Launches):
    def __init__(self) -> None:
        pass

    async def all(self) -> Mapping[str, Launch]:
        return {}


async def _fetch_nothing(source: str, root: Path, credentials: object, *, on_progress: OnProgress) -> Artifact:
    raise DownloadError(source)


def _folder_of(name: str, source: str) -> str:
    return source if source.startswith("/") else f"/adapters/{name}/{quote(source, safe='')}"


class Stage:
    """``names``: instances of the model ``base``; one in capitals refuses to replace what it has, as SGLang does.

    ``top``: what the YAML file has before them.
    """

    def __init__(self, folder: Path, names: str = "abC", top: str = "") -> None:
        entries = "".join(
            f"- {{name: {name}, model: base, engine: sim, url: 'http://10.0.0.{index}:1', "
            "sleep_manager: {min_sleep_duration: 0}}\n"
            for index, name in enumerate(names, 1)
        )
        file = folder / "torpor.yaml"
        file.write_text(f"{top}instances:\n{entries}")
        self._config = load(file, {})
        self.loop = Time()
        self.engines = {name: FakeEngine(name, replaces=name.islower()) for name in names}
        self.store, self.artifacts, self._marks = FakeStore(), FakeArtifacts(), _Marks()
        self.open()

    def open(self) -> None:
        """A gateway; another one may have been here before."""

        def engine_of(instance: InstanceConfig) -> Engine:
            return self.engines[instance.name]

        self.fleet = Fleet(self._config, engine_of, self._marks, _Launches(), self.loop.time, self.wall)
        ground = Ground(
            self.fleet,
            self.store,
            self.artifacts,
            Credentials(Path("/nowhere"), {}),
            lambda instance, key: instance.engine,
            wall=self.wall,
            chance=random.Random(0),
        )
        self.controller = AdapterController(ground)
        self._open = AsyncExitStack()
        self.wait_for(self._begin())

    def shut(self) -> None:
        self.wait_for(self._open.aclose())

    def close(self) -> None:
        self.shut()
        self.loop.close()

    async def _begin(self) -> None:
        await self.controller.restore({})
        await self._open.enter_async_context(self.fleet.watched())
        await self._open.enter_async_context(self.controller.running())

    def wall(self) -> float:
        return EPOCH + self.loop.time()

    def wait_for(self, work: Awaitable[T]) -> T:
        async def waited() -> T:
            return await work

        return self.loop.run_until_complete(waited())

    def run(self, seconds: float) -> None:
        self.wait_for(asyncio.sleep(seconds))

    def put(self, name: str, source: str, replicas: int | str = "all") -> None:
        spec = {"baseModel": "base", "artifactURL": source, "replicas": replicas}
        self.wait_for(self.controller.put(name, AdapterSpec.model_validate(spec)))

    def path(self, name: str, source: str) -> str:
        return _folder_of(name, source)

    def instance(self, name: str) -> Instance:
        return self.fleet.instances[name]

    def route(self, name: str) -> AdapterRoute | None:
        found = self.fleet.routes.get(name)
        return found if isinstance(found, AdapterRoute) else None

    def phases(self, name: str) -> list[str]:
        return [entry.kind for entry in self.store.told.get(name, [])]

    def reasons(self, name: str) -> list[str]:
        return [entry.reason for entry in self.store.happened.get(name, [])]

    def reload(self, names: str, renewed: str = "") -> None:
        """From now on the configuration has just these. ``renewed``: those that are others, of the same name."""
        instances = tuple(one for one in self._config.instances if one.name in names)
        self.wait_for(self._reload(replace(self._config, instances=instances), renewed))

    async def _reload(self, config: Config, renewed: str) -> None:
        left = self.fleet.apply(config, renewed)
        for gone in left:
            gone.instance.retire()
            self.engines[gone.instance.name].loaded.clear()
        await self.controller.declare({})
        for gone in left:
            await gone.aclose()

    def crash(self, name: str) -> None:
        """It is gone, and that is noticed."""
        self.engines[name].crash()
        self.wait_for(self.fleet.transitions[name].observe())

    def asleep(self, name: str) -> None:
        self.wait_for(self.fleet.transitions[name].sleep("manual", 0.1))

    def wake(self, name: str) -> None:
        self.wait_for(self.fleet.transitions[name].wake("manual"))
