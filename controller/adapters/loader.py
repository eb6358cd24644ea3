"""What is told to an engine so that it has an adapter from just the wanted folder."""

from __future__ import annotations

from runtime import adapters
from runtime.engines.base import AdapterHost, AlreadyLoaded, EngineTimeout


async def put(engine: AdapterHost, name: str, path: str, *, afresh: bool) -> None:
    """Have ``name`` loaded from ``path``; what bears that name there is replaced. Raises ``EngineError``.

    ``afresh``: also when it is loaded from there already, for its weights may be gone.
    """
    if afresh:
        await _replace(engine, name, path)
        return
    try:
        await adapters.load(engine, name, path)
    except AlreadyLoaded:
        await _replace(engine, name, path)


async def _replace(engine: AdapterHost, name: str, path: str) -> None:
    if not engine.capabilities.replaces_adapters:
        await adapters.unload(engine, name)
        await adapters.load(engine, name, path)
        return
    try:
        await engine.load_adapter(name, path, replace=True)
    except EngineTimeout:
        seen = (await engine.adapters()).get(name)
        if seen is None or seen.path != path:
            raise
