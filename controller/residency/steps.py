"""What is done for those that wait for room. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Admit:
    """Wake ``name``: its memory is there."""

    model: str
    name: str


@dataclass(frozen=True, slots=True)
class Evict:
    """Put ``name`` to sleep at ``level`` for ``model``. ``firmly``: a request for it does not call that off.

    ``model`` is empty where nobody waits, as when engines were woken by hand: then it is because of ``rival``, which is
    awake and may not be with it, or because more is held than there is.
    """

    name: str
    level: int
    model: str
    firmly: bool
    rival: str = ""

    @property
    def cause(self) -> str:
        if self.rival:
            return f"{self.rival} is awake, and one of them may be"
        return self.model or "more is held than there is"


@dataclass(frozen=True, slots=True)
class Sink:
    """Have ``name`` drop its weights for ``model``: those of who is to leave go where they were, in the full host."""

    name: str
    level: int
    model: str

    @property
    def cause(self) -> str:
        return f"{self.name!r} drops its weights, for the host is full"


@dataclass(frozen=True, slots=True)
class Refuse:
    """It can never be. ``reason``: the arithmetic."""

    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """``cause``: what for. ``seconds``: until time alone helps it, as far as is known."""

    model: str
    cause: str
    seconds: float = 0.0


Step = Admit | Evict | Sink | Refuse | Wait
