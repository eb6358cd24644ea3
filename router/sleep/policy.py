"""Who should sleep at this moment. Pure: values in, a decision out."""

from __future__ import annotations

from dataclasses import dataclass

from controller.config.model import SleepSettings
from controller.fleet.state import State


@dataclass(frozen=True, slots=True)
class Idleness:
    """One instance. ``idle_seconds``: since its model was last asked, or since it became ready if that is later."""

    state: State
    can_sleep: bool
    in_flight: int
    idle_seconds: float


def is_candidate(idleness: Idleness, settings: SleepSettings) -> bool:
    """Whether it has been idle for longer than its threshold and could sleep now."""
    return (
        idleness.state is State.READY
        and idleness.can_sleep
        and idleness.in_flight == 0
        and idleness.idle_seconds > settings.idle_threshold_seconds
    )
