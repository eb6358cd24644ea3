"""Who should sleep at this moment, and who deeper. Pure: values in, a decision out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from controller.config.model import SleepSettings
from controller.fleet.state import State


@dataclass(frozen=True, slots=True)
class Idleness:
    """One instance. ``idle_seconds``: since its model was last asked, or since it became ready if that is later."""

    state: State
    can_sleep: bool
    in_flight: int
    idle_seconds: float


class Deeper(Enum):
    LEVEL_2 = auto()
    STOP = auto()


def deeper(
    level: int, asleep_seconds: float, levels: Collection[int], can_stop: bool, settings: SleepSettings
) -> Deeper | None:
    """The next step down for an instance that sleeps. ``levels``: those its engine can sleep at."""
    if can_stop and settings.stop_after_seconds is not None and asleep_seconds >= settings.stop_after_seconds:
        return Deeper.STOP
    after = settings.level2_after_seconds
    if level == 1 and 2 in levels and after is not None and asleep_seconds >= after:
        return Deeper.LEVEL_2
    return None


def is_candidate(idleness: Idleness, settings: SleepSettings) -> bool:
    """Whether it has been idle for longer than its threshold and could sleep now."""
    return (
        idleness.state is State.READY
        and idleness.can_sleep
        and idleness.in_flight == 0
        and idleness.idle_seconds > settings.idle_threshold_seconds
    )
