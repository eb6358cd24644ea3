"""The configuration as the rest of the program sees it: frozen, complete, every default and name filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controller.adapters.spec import AdapterSpec
from controller.config.schema import (
    LaunchSection,
    ModelSection,
    ResidencySection,
    RouterSection,
    SleepSection,
    Start,
    TimeoutSection,
)
from controller.residency.footprint import Footprint
from controller.residency.memory import Memory
from runtime.engines.spec import EngineSpec

SleepSettings = SleepSection
FRONTEND = "frontend"
"""The router's own session; no instance may be called so."""
SIDECAR_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A ``python -m runtime`` beside one engine, on loopback. ``name``: as the launcher knows it."""

    name: str
    session: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{SIDECAR_HOST}:{self.port}"


@dataclass(frozen=True, slots=True)
class Instance:
    """One engine process. ``model`` is the name it counts under, ``names`` all it is asked by, adapters aside."""

    name: str
    model: str
    names: tuple[str, ...]
    spec: EngineSpec
    sleep: SleepSettings
    session: str
    timeouts: TimeoutSection = field(default_factory=TimeoutSection)
    weight: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    footprint: Footprint | None = None
    start: Start = "awake"
    venv: Path | None = None
    sidecar: Sidecar | None = None

    @property
    def launched(self) -> bool:
        """Whether the launcher starts it; one with a ``url`` runs already."""
        return not self.spec.remote

    def is_engine_of(self, other: Instance) -> bool:
        """Whether what is known of the one's engine holds for the other's."""
        mine, theirs = self.spec, other.spec
        return (self.model, mine.kind, mine.base_url, mine.remote) == (
            other.model,
            theirs.kind,
            theirs.base_url,
            theirs.remote,
        )


NO_SETTINGS = ModelSection()


@dataclass(frozen=True, slots=True)
class Config:
    """One YAML file. ``digest`` is of its text; ``api_key`` is the clients'.

    ``rivals``: model -> the models that may not be awake with it.
    ``credentials``: variables of the environment that hold named sets.
    """

    file: Path
    digest: str
    router: RouterSection
    sleep: SleepSettings
    launch: LaunchSection
    launch_delay_seconds: float
    state_url: str = field(repr=False)  # may hold a password
    log_dir: Path
    instances: tuple[Instance, ...]
    model_settings: Mapping[str, ModelSection] = field(default_factory=dict)
    capacity: Memory = field(default_factory=dict)
    residency: ResidencySection = field(default_factory=ResidencySection)
    rivals: Mapping[str, frozenset[str]] = field(default_factory=dict)
    api_key: str | None = field(default=None, repr=False)
    adapters: Mapping[str, AdapterSpec] = field(default_factory=dict)
    adapters_folder: Path = Path("adapters")
    credentials_file: Path = Path("credentials.json")
    adapter_refresh_seconds: float | None = None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def frontend_session(self) -> str:
        return self.launch.session_prefix + FRONTEND

    @property
    def models(self) -> tuple[str, ...]:
        """Each model once, in the file's order."""
        return tuple(dict.fromkeys(instance.model for instance in self.instances))

    def settings_of(self, model: str) -> ModelSection:
        return self.model_settings.get(model, NO_SETTINGS)

    def instances_of(self, model: str) -> tuple[Instance, ...]:
        return tuple(instance for instance in self.instances if instance.model == model)


def session_name(prefix: str, name: str) -> str:
    """A tmux session for ``name``: tmux reads dots and colons as targets, and a shell the rest."""
    return prefix + re.sub(r"[^A-Za-z0-9_-]", "_", name)
