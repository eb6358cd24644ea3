"""Who sees to it that the memory of an engine that sleeps, or has ended, has been given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from controller.fleet.instance import Instance

Settled = Callable[[], Awaitable[None]]
"""To be awaited once the engine says that it is done: returns when its memory is free, or is not worth waiting for."""

Scales = Callable[[Instance, int], Awaitable[Settled]]
"""To be called before the engine is told. The second value: the level of its sleep; 0 if its process ends.

Neither raises.
"""


async def no_scales(_: Instance, __: int) -> Settled:
    """Takes the engine's word for it."""
    return _at_once


async def _at_once() -> None:
    pass
