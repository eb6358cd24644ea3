"""The set that leaves: it makes enough room, nobody leaves for nothing, and it costs as little as can be. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TypeVar

from controller.residency.memory import Memory, lacks, total

T = TypeVar("T")
Candidate = tuple[float, Memory, T]
"""What its leaving costs, what it frees, who it is."""

TOGETHER = 3
MOST = 24
"""All sets of so many of so many candidates are looked at: 2,324. Of larger ones a good one is found, not the best."""


def choose(missing: Memory, candidates: Sequence[Candidate[T]]) -> list[T] | None:
    """Who leaves so that ``missing`` is free; None when not even all of them are enough."""
    useful = sorted((one for one in candidates if helps(missing, one)), key=lambda one: one[0])
    if lacks(missing, _freed(missing, useful)):
        return None
    best = _prune(missing, useful)
    for size in range(1, TOGETHER + 1):
        for some in combinations(useful[:MOST], size):
            if _cost(some) < _cost(best) and not lacks(missing, _freed(missing, some)):
                best = list(some)
    return [who for _, _, who in best]


def _prune(missing: Memory, useful: Sequence[Candidate[T]]) -> list[Candidate[T]]:
    """The cheapest first until it is enough; then whoever is not needed stays, the dearest first."""
    leaving: list[Candidate[T]] = []
    for one in useful:
        leaving.append(one)
        if not lacks(missing, _freed(missing, leaving)):
            break
    while (fewer := _without_one(missing, leaving)) is not None:
        leaving = fewer
    return leaving


def _without_one(missing: Memory, leaving: Sequence[Candidate[T]]) -> list[Candidate[T]] | None:
    """Without the dearest that may stay. Once it stays, another may: it may have taken memory by leaving."""
    for one in sorted(leaving, key=lambda one: -one[0]):
        fewer = [other for other in leaving if other is not one]
        if fewer and not lacks(missing, _freed(missing, fewer)):
            return fewer
    return None


def helps(missing: Memory, one: Candidate[T]) -> bool:
    return any(one[1].get(place, 0) > 0 for place in missing)


def _freed(missing: Memory, some: Sequence[Candidate[T]]) -> dict[str, int]:
    return {**dict.fromkeys(missing, 0), **total(freed for _, freed, _ in some)}


def _cost(some: Sequence[Candidate[T]]) -> float:
    return sum(cost for cost, _, _ in some)
