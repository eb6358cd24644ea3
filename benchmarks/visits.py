"""Who asks which model when: mostly a few of them, in bursts, and by and by it is others. Seeded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

SIZES = (9.5, 13, 15, 22, 24.5, 24.5, 26.5, 33.5, 38, 52, 61)
"""GiB: the weights of models of 1.5 to 24 billion parameters, and a cache of some use beside them."""


@dataclass(frozen=True, slots=True)
class Model:
    """``level``: at which it sleeps; one that drops its weights wakes slowly."""

    name: str
    gib: float
    level: int

    @property
    def wake_seconds(self) -> float:
        """From the host's memory at 20 GiB/s, from a disk at 2."""
        return 0.5 + self.gib / (20.0 if self.level == 1 else 2.0)

    @property
    def sleep_seconds(self) -> float:
        return 0.3 + self.gib / 50.0


@dataclass(frozen=True, slots=True)
class Visit:
    """One request. Times in seconds."""

    at: float
    model: str
    lasts: float


@dataclass(frozen=True, slots=True)
class Demand:
    """``visitors``: a second, each with some requests one after the other. ``skew``: of the models' popularity (Zipf).

    ``drift``: every so many seconds two models change their places in it.
    """

    seconds: float = 8 * 3600.0
    visitors: float = 0.02
    requests: float = 6.0
    pause: float = 8.0
    lasts: float = 5.0
    skew: float = 1.0
    drift: float = 600.0


def models(number: int) -> tuple[Model, ...]:
    """Every third one drops its weights when it sleeps."""
    return tuple(
        Model(f"model-{index:02}", SIZES[index * 4 % len(SIZES)], 2 if index % 3 == 2 else 1) for index in range(number)
    )


def visits(demand: Demand, of: Sequence[Model], seed: int) -> list[Visit]:
    chance = random.Random(seed)
    ranks = list(of)
    chance.shuffle(ranks)
    weights = [1.0 / rank**demand.skew for rank in range(1, len(ranks) + 1)]
    found: list[Visit] = []
    now, drifts = 0.0, demand.drift
    while (now := now + chance.expovariate(demand.visitors)) < demand.seconds:
        while now > drifts:
            one, other = chance.sample(range(len(ranks)), 2)
            ranks[one], ranks[other] = ranks[other], ranks[one]
            drifts += demand.drift
        model = chance.choices(ranks, weights)[0].name
        at = now
        for _ in range(1 + int(chance.expovariate(1 / (demand.requests - 1)))):
            lasts = chance.expovariate(1 / demand.lasts)
            found.append(Visit(at, model, lasts))
            at += lasts + chance.expovariate(1 / demand.pause)
    return sorted((one for one in found if one.at < demand.seconds), key=lambda one: one.at)
