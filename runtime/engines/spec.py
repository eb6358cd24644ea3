"""What is known of one engine process before it runs: a frozen description, and what its kind can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CALL_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do.

    ``sleep``: it can release its GPU memory and take it back.
    ``tells_sleep``: it can be asked whether it sleeps; one that cannot (SGLang) is known by its mark alone.
    ``adapters``: LoRA adapters can be loaded and unloaded while it runs.
    ``levels``: of sleep; 1 keeps the weights in host memory, 2 drops them.
    ``replaces_adapters``: one that is loaded can be replaced without being unloaded first.
    """

    sleep: bool
    tells_sleep: bool
    adapters: bool
    replaces_adapters: bool = False
    levels: tuple[int, ...] = (1, 2)

    def levels_from(self, wished: int) -> tuple[int, ...]:
        """That level and deeper ones; the deepest where it has none of them."""
        return tuple(level for level in self.levels if level >= wished) or self.levels[-1:]


@dataclass(frozen=True, slots=True)
class LoraLimits:
    """What an engine's arguments say of adapters; None where they say nothing.

    ``max_rank``: no adapter of a higher one is taken. ``slots``: adapters ready to use at once, it swaps beyond that.
    ``most``: adapters it can hold at all.
    """

    max_rank: int | None = None
    slots: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine process.

    ``served_names``: names the engine itself answers to; the first is sent when a client used another name.
    ``adapters``: client's name -> name the engine wants for a LoRA it loads at start.
    ``lora``: what it says of others. ``takes_adapters``: it is started so that they can be loaded while it runs.
    ``python``: the interpreter that runs it. ``args``: the user's own, in order.
    ``env``: the user's. Arguments and variables may hold tokens, so none is shown.
    ``call_seconds``: the longest that a call which changes something may take, a wake aside.
    ``gateway``: it is the next gateway, which is told since when a request waits.
    """

    name: str
    kind: str
    model: str
    host: str
    port: int
    base_url: str
    served_names: tuple[str, ...]
    python: str = "python3"
    args: tuple[str, ...] = field(default=(), repr=False)
    command: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    gpus: tuple[int, ...] = ()
    sleep_flags: bool = True
    remote: bool = False
    adapters: Mapping[str, str] = field(default_factory=dict)
    lora: LoraLimits = LoraLimits()
    takes_adapters: bool = False
    api_key: str | None = field(default=None, repr=False)
    metrics_path: str = "/metrics"
    call_seconds: float = CALL_SECONDS
    gateway: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """All that says how it is started: the user's arguments, and the command if it has one."""
        return (*self.args, *self.command)

    @property
    def engine_name(self) -> str:
        """The name to put in ``model`` when the client's own name is unknown to the engine."""
        return self.served_names[0]


@dataclass(frozen=True, slots=True)
class Command:
    """How to start an engine: its argv, and the variables its kind adds below the user's own."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArgumentFacts:
    """What an engine's own arguments say that the gateway must know."""

    host: str | None = None
    port: str | None = None
    served_names: tuple[str, ...] = ()
    adapters: Mapping[str, str] = field(default_factory=dict)
    lora: LoraLimits = LoraLimits()
