"""The fleet as residency sees it: what each instance takes, holds, and would give back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import chain
from statistics import median

from controller.config.model import Config
from controller.fleet.instance import Instance
from controller.fleet.state import AWAKE, State
from controller.residency.decision import Resident
from controller.residency.footprint import Footprint
from controller.residency.measured import completed
from controller.residency.memory import GIB, NOTHING, Memory

NO_FIGURES = Footprint(NOTHING, {1: NOTHING, 2: NOTHING})

HOLDING = AWAKE | {State.WAKING, State.FALLING_ASLEEP, State.STARTING, State.UNKNOWN}
"""States in which it is awake, or may be."""

START_SECONDS = 60.0


def footprint_of(instance: Instance) -> Footprint:
    """As the YAML says; else as it was measured."""
    if instance.config.footprint is not None:
        return instance.config.footprint
    return NO_FIGURES if instance.measured is None else completed(instance.measured)


def is_managed(instance: Instance, config: Config) -> bool:
    """Whether it takes part: it has figures, or rivals."""
    return has_figures(instance) or instance.config.model in config.rivals


def has_figures(instance: Instance) -> bool:
    return instance.config.footprint is not None or instance.measured is not None


def capacity(instances: Collection[Instance], declared: Memory, measured: Memory) -> Memory:
    """Of the places in the YAML; of others as measured, if anybody is known to take memory there."""
    used = {place for one in instances for place in footprint_of(one).awake}
    return {**{place: size for place, size in measured.items() if place in used}, **declared}


def levels(instance: Instance) -> Mapping[int, Memory]:
    """What it would hold asleep, at the level that is wished for, and at deeper ones."""
    capabilities = instance.engine.capabilities
    if not capabilities.sleep:
        return {}
    footprint = footprint_of(instance)
    return {level: footprint.at(level) for level in capabilities.levels_from(instance.config.sleep.level)}


def wake_seconds(instance: Instance, spent: float = 0.0) -> float:
    """As its last wakes took that lasted longer than ``spent``, from where it is if there were any.

    By its size before there was one; ``spent`` if none has ever taken so long.
    """
    starts = instance.state in (State.STOPPED, State.STARTING)
    level = 0 if starts else instance.level or instance.config.sleep.level
    known = instance.wake_seconds.get(level) or ([] if starts else list(chain(*instance.wake_seconds.values())))
    if known:
        return median([seconds for seconds in known if seconds > spent] or [spent])
    size = sum(footprint_of(instance).awake.values())
    return max(spent, (START_SECONDS if starts else 1.0) + 0.1 * size / GIB)


def resident(
    instance: Instance, config: Config, *, waited_for: bool, leaving: int | None, granted: bool, spared: bool
) -> Resident:
    """``waited_for``: requests for its model wait. ``spared``: it was asked to leave lately, and could not."""
    settings, now, asleep = config.settings_of(instance.config.model), instance.clock(), levels(instance)
    state = instance.engine_state
    if leaving is not None:  # other settings may wish for another level by now
        asleep = {leaving: footprint_of(instance).at(leaving), **asleep}
    return Resident(
        name=instance.name,
        model=instance.config.model,
        awake=granted or state in HOLDING or (state is State.FAILED and not instance.gone),
        asleep=asleep,
        leaving=leaving,
        settled=instance.state is State.READY and not spared,
        idle=instance.in_flight == 0 and not waited_for,
        pinned=settings.pinned,
        awake_seconds=now - instance.awake_since,
        idle_seconds=now - max(instance.used_at, instance.ready_since),
        wake_seconds=wake_seconds(instance),
        priority=settings.priority,
        departed=instance.has_left,
    )
