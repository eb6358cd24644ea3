"""Since when models wait whose requests another gateway has passed on: it tells so in the journal as it leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from controller.fleet.journal import Event, Happened, Journal
from controller.fleet.waker import REQUEST
from controller.residency.line import Waiting

PASSED_ON_SECONDS = 10.0
"""So soon after another has left this one opens, and so soon after that its requests are here."""


@dataclass(frozen=True, slots=True)
class Seniority:
    """``since``: of models. ``until``: who joins the line later has not waited before. On the fleet's clock."""

    since: Mapping[str, float] = field(default_factory=dict)
    until: float = float("-inf")

    def of(self, model: str, now: float) -> float:
        """Since when it waits, if it joins the line now."""
        return self.since.get(model, now) if now < self.until else now


ALL_NEW = Seniority()


def tell(journal: Journal, waiting: Iterable[Waiting], now: float) -> None:
    """For the next gateway: of each model that requests wait for, how long the first of them has waited."""
    firsts: dict[str, Waiting] = {}
    for entry in waiting:
        if entry.cause == REQUEST and not entry.refusal:
            firsts.setdefault(entry.model, entry)
    for model, entry in firsts.items():
        journal.tell(Happened.WAITS, model, cause=REQUEST, detail=entry.why, seconds=now - entry.since)


def recall(events: Iterable[Event], now: float, wall: float) -> Seniority:
    """``events``: the last ones, oldest first. Of a model that was passed on several times the last word counts."""
    since: dict[str, float] = {}
    for event in events:
        ago = wall - event.time
        if event.what is Happened.WAITS and event.seconds is not None and 0 <= ago <= PASSED_ON_SECONDS:
            since[event.model] = now - ago - event.seconds
    return Seniority(since, now + PASSED_ON_SECONDS)
