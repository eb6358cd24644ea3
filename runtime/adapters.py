"""A LoRA beside one engine: what it may be called, whether it fits, and loading it so that twice is as good as once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from runtime.engines.base import AdapterHost, AlreadyLoaded, EngineTimeout, NotLoaded

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\Z")
NAME_RULE = "1 to 128 letters, digits, dots, dashes and underscores, and no dot at its start"
CONFIG_FILE = "adapter_config.json"
LARGEST_CONFIG = 1 << 20  # bytes


class UnfitAdapter(Exception):
    """The folder holds no adapter, or one that the engine would refuse. Trying again does not help."""


def is_name(text: str) -> bool:
    return NAME.match(text) is not None


def read_config(folder: Path) -> Mapping[str, Any]:
    """The adapter's own description. Reads the disk; raises ``UnfitAdapter``."""
    file = folder / CONFIG_FILE
    try:
        with file.open("rb") as source:
            text = source.read(LARGEST_CONFIG + 1)
    except OSError as missing:
        raise UnfitAdapter(f"no LoRA adapter in {folder}: {CONFIG_FILE}: {missing.strerror}") from missing
    if len(text) > LARGEST_CONFIG:
        raise UnfitAdapter(f"{file} is larger than {LARGEST_CONFIG} bytes")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        raise UnfitAdapter(f"{file} is not JSON") from None
    if not isinstance(config, dict):
        raise UnfitAdapter(f"{file} is not a JSON object")
    return config


def check(config: Mapping[str, Any], bases: tuple[str, ...], max_rank: int | None) -> str | None:
    """Why an engine would refuse an adapter of this ``adapter_config.json``; None when nothing speaks against it.

    ``bases``: names and paths of the engine's model. They are compared by their last part only, and one may go on where
    the other ends: an adapter trained on ``/data/Llama-3`` fits ``meta-llama/Llama-3`` and ``org/Llama-3-AWQ``. What is
    not known (no bases, ``max_rank`` None) is not checked.
    """
    kind = config.get("peft_type", "LORA")
    if str(kind).upper() != "LORA":
        return f"it is a {kind} adapter, not a LORA one"
    rank = config.get("r")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        return f"its rank r is {rank!r}, not a whole number above 0"
    if max_rank is not None and rank > max_rank:
        return f"its rank {rank} is above the engine's max_lora_rank {max_rank}"
    base = config.get("base_model_name_or_path")
    if isinstance(base, str) and base and bases and not any(_alike(_last(base), _last(one)) for one in bases):
        return f"it was made for {base!r}, and the engine serves {', '.join(map(repr, dict.fromkeys(bases)))}"
    return None


def _alike(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _last(model: str) -> str:
    """``org/Name`` and ``/path/to/name`` give ``name``, as does a folder of the hub's cache."""
    parts = [part for part in PurePosixPath(model).parts if part != "/"]
    cached = [part for part in parts if part.startswith("models--")]
    name = cached[-1].rpartition("--")[2] if cached else (parts[-1] if parts else "")
    return name.lower()


async def load(engine: AdapterHost, name: str, path: str) -> str:
    """Load unless it is loaded from this very path; return the engine's answer. Raises ``EngineError``.

    Nothing is replaced: a name loaded from elsewhere is ``AlreadyLoaded``. An engine that answered late is asked.
    """
    try:
        return await engine.load_adapter(name, path)
    except (AlreadyLoaded, EngineTimeout):
        if not await _is_loaded(engine, name, path):
            raise
        return _done(name, path)


async def put(engine: AdapterHost, name: str, path: str, *, afresh: bool = False) -> str:
    """Have ``name`` loaded from ``path``, in the place of what bears that name. Raises ``EngineError``.

    ``afresh``: also when it is loaded from there already, for its weights may be gone.
    """
    if not afresh:
        try:
            return await load(engine, name, path)
        except AlreadyLoaded:
            pass
    if not engine.capabilities.replaces_adapters:
        await unload(engine, name)
        return await load(engine, name, path)
    try:
        return await engine.load_adapter(name, path, replace=True)
    except EngineTimeout:
        if not await _is_loaded(engine, name, path):
            raise
        return _done(name, path)


async def _is_loaded(engine: AdapterHost, name: str, path: str) -> bool:
    """By its own word, from this very path."""
    seen = (await engine.adapters()).get(name)
    return seen is not None and seen.path == path


def _done(name: str, path: str) -> str:
    return f"LoRA adapter '{name}' is loaded from '{path}'."


async def unload(engine: AdapterHost, name: str) -> None:
    """Unload it, or find it unloaded. Raises ``EngineError``."""
    try:
        await engine.unload_adapter(name)
    except NotLoaded:
        return
    except EngineTimeout:
        if name in await engine.adapters():
            raise
