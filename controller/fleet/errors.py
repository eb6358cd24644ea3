"""Why an instance could not be had, put to sleep or woken. No HTTP here: router/envelope.py gives each its status.

FleetError
├── Unavailable            nobody can serve the model now
│   ├── Unreachable        its engines are down
│   ├── NotLoaded          an adapter that no instance has
│   ├── KeptAsleep         asleep, and requests must not wake it
│   ├── WakeFailed         the engine would not wake
│   ├── StoppedByHand      its process was ended, and requests must not start it
│   ├── GivenUp            its process ended again and again
│   ├── NoRoom             it does not fit into memory, however long it waits
│   └── DeadlinePassed     it took too long
└── TransitionRefused      a sleep or wake that was asked for did not happen
    ├── TooEarly           must sleep a little longer (``retry_after``)
    ├── Busy               did not drain in time; stays awake
    ├── NoHostMemory       asleep it would take more than the host has left
    ├── CalledOff          a request came, or it is not needed any more; stays awake
    ├── NotPossible        its state, or its kind, does not allow it
    └── EngineFailed       the engine did not do it
"""

from __future__ import annotations


class FleetError(Exception):
    """``retry_after``: seconds after which it is worth trying again, None when nobody can tell."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(FleetError):
    pass


class Unreachable(Unavailable):
    pass


class NotLoaded(Unavailable):
    pass


class KeptAsleep(Unavailable):
    pass


class WakeFailed(Unavailable):
    pass


class StoppedByHand(Unavailable):
    pass


class GivenUp(Unavailable):
    pass


class NoRoom(Unavailable):
    pass


class DeadlinePassed(Unavailable):
    pass


class TransitionRefused(FleetError):
    pass


class TooEarly(TransitionRefused):
    pass


class Busy(TransitionRefused):
    pass


class NoHostMemory(TransitionRefused):
    pass


class CalledOff(TransitionRefused):
    pass


class NotPossible(TransitionRefused):
    pass


class EngineFailed(TransitionRefused):
    pass
