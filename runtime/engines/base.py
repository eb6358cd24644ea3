"""The one seam to an engine's control API. Tokens do not pass here: the router's data path carries those.

EngineError
├── EngineUnreachable     nobody listens, or the connection broke
├── EngineTimeout         no answer within the deadline: whether it was done is not known
├── EngineRefused         it answered with an error (``status``, ``text``)
│   ├── AlreadyLoaded     it has an adapter of that name, from whatever path
│   └── NotLoaded         it has no adapter of that name
└── NotSupported          this kind cannot do that; nothing was sent
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from runtime.engines.reason import reason_of
from runtime.engines.spec import Capabilities


class EngineError(Exception):
    """An engine did not do what it was told. ``engine`` is the instance's name."""

    def __init__(self, engine: str, operation: str, detail: str) -> None:
        super().__init__(f"{engine}: {operation}: {detail}")
        self.engine = engine
        self.operation = operation
        self.detail = detail


class EngineUnreachable(EngineError):
    pass


class EngineTimeout(EngineError):
    pass


class EngineRefused(EngineError):
    """``status``: 400 or above. ``text``: its body as it came, perhaps cut. ``reason``: what that says in words."""

    def __init__(self, engine: str, operation: str, status: int, text: str) -> None:
        self.reason = reason_of(text)
        super().__init__(engine, operation, f"answered {status}: {self.reason}")
        self.status = status
        self.text = text


class AlreadyLoaded(EngineRefused):
    pass


class NotLoaded(EngineRefused):
    pass


class NotSupported(EngineError):
    pass


@dataclass(frozen=True, slots=True)
class AdapterSeen:
    """An adapter as its engine lists it: where it was loaded from and its base, where told."""

    path: str | None
    parent: str | None


@dataclass(frozen=True, slots=True)
class Sight:
    """What ``healthy`` and ``is_asleep`` would say."""

    healthy: bool | None
    asleep: bool | None = None


class AdapterHost(Protocol):
    """Where adapters are loaded: an engine, or whoever tells one."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def adapters(self) -> Mapping[str, AdapterSeen]:
        """What it has loaded, by its own word. Safe while it sleeps."""

    async def load_adapter(self, name: str, path: str, *, replace: bool = False) -> str:
        """Load from a folder that the engine can read; return its answer as it came.

        ``AlreadyLoaded`` when there is one of that name, unless ``replace`` (``Capabilities.replaces_adapters``). To
        replace, give another path: blocks in the prefix cache are known by it.
        """

    async def unload_adapter(self, name: str) -> str:
        """Return its answer as it came; ``NotLoaded`` when there is none of that name."""


class Engine(AdapterHost, Protocol):
    """What the gateway asks of one engine. Each call has a deadline of its own and raises ``EngineError``."""

    async def healthy(self) -> bool | None:
        """Whether it is up; None when it gave no answer in time, as a busy one may. Raises nothing.

        Safe in every state: touches no model and wakes nothing.
        """

    async def busy(self) -> int | None:
        """Requests running or waiting by the engine's own count; None when it does not tell."""

    async def pulse(self) -> float | None:
        """A number that changes as long as its work goes on; None when it does not tell."""

    async def sleep(self, level: int) -> None:
        """Release GPU memory: 1 keeps the weights in host RAM, 2 drops them. The engine must be idle.

        Told again while asleep, an engine changes nothing: so a call whose outcome is unknown may be repeated.
        """

    async def wake(self, level: int | None) -> None:
        """Take the memory back, the weights with it, from ``level`` (None: find out). Only an engine asleep."""

    async def is_asleep(self) -> bool | None:
        """None when the engine cannot tell."""

    async def look(self) -> Sight:
        """Both, in as few calls as can be: it is done every few seconds. Safe in every state; raises nothing."""

    def adapter_model(self, name: str) -> str:
        """What to put in ``model`` to be answered by the adapter ``name``."""

    async def bases(self) -> tuple[str, ...]:
        """Names and paths of its own model, as far as it tells. Safe while it sleeps."""

    async def metrics(self) -> str:
        """Its Prometheus text as it is."""
