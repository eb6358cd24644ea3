"""How deep an instance may sleep, by what is free in the host; and who sleeps deeper, that others need not.

Of those asleep there it is the least recently used.
"""

from __future__ import annotations

from collections.abc import Iterable

from controller.fleet.errors import NoHostMemory
from controller.fleet.instance import Instance
from controller.fleet.state import State
from controller.residency.books import Books, level_that_fits
from controller.residency.memory import NOTHING, Memory, gib, lacks, minus
from controller.residency.sleepers import Sleeper, first_to_sink
from controller.residency.tenants import footprint_of, levels


def level_of(instance: Instance, books: Books) -> int:
    """The one that is wished for, or the next one down for which there is memory. Raises ``NoHostMemory``."""
    possible = levels(instance)
    level = level_that_fits(possible, books.held[instance.name], books.free)
    if level is not None:
        return level
    if not possible:
        return instance.config.sleep.level
    short = ", ".join(f"{gib(size)} on {place}" for place, size in _missing(instance, books).items())
    raise NoHostMemory(f"{instance.name!r} cannot sleep now: it would take {short} more than there is")


def in_the_way(instance: Instance, books: Books, others: Iterable[Instance]) -> str | None:
    """Who should sink one level, so that ``instance`` can sleep at the one that is wished for."""
    missing = _missing(instance, books)
    first = first_to_sink(missing, instance.used_at, sleepers(others)) if missing else None
    return first.name if first else None


def sleepers(instances: Iterable[Instance]) -> list[Sleeper]:
    """Those of them that sleep, and could deeper."""
    return [sleeper for one in instances if (sleeper := _sleeper(one)) is not None]


def _missing(instance: Instance, books: Books) -> Memory:
    wished = next(iter(levels(instance).values()), NOTHING)
    return lacks(minus(wished, books.held[instance.name]), books.free)


def _sleeper(instance: Instance) -> Sleeper | None:
    deeper = [level for level in instance.engine.capabilities.levels if level > instance.level]
    if instance.state is not State.ASLEEP or not deeper:
        return None
    footprint, level = footprint_of(instance), deeper[0]
    held = footprint.at(instance.level)
    return Sleeper(
        name=instance.name,
        model=instance.config.model,
        frees=minus(held, footprint.at(level)),
        needs={place: size for place, size in minus(footprint.awake, held).items() if size > 0},
        level=level,
        used_at=instance.used_at,
    )
