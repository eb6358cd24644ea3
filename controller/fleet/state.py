"""The states of one instance. docs/sleep.md draws the arrows between them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    UNKNOWN = "unknown"
    """Before the engine, or its mark, has told."""
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    """To sleep as soon as nothing is in flight; a request may still call that off."""
    FALLING_ASLEEP = "falling_asleep"
    """The engine has been told, or is about to be: nothing may reach it."""
    ASLEEP = "asleep"
    WAKING = "waking"
    STOPPED = "stopped"
    """Its process was ended, and may be started again."""
    FAILED = "failed"
    """Not there, or not to be trusted."""


class Hold(StrEnum):
    """Why neither a request nor the supervisor starts it: somebody has to, by hand."""

    NONE = ""
    BY_HAND = "by_hand"
    """Somebody stopped it."""
    GIVEN_UP = "given_up"
    """It failed again and again."""


AWAKE = frozenset({State.READY, State.DRAINING})
SLEEPING = frozenset({State.FALLING_ASLEEP, State.ASLEEP, State.WAKING})
NOT_ASLEEP = frozenset({State.READY, State.STARTING, State.STOPPED})
"""In the others it depends on what was before."""
