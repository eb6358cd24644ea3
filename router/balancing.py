"""Which replica gets a request. Pure but for what each policy remembers, which is bounded.

A policy is asked with the replicas that are ready, and with what it ``wants`` to know of the request: nothing, the key
of a session, or the prompt.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum, auto
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Protocol, TypeVar

BOUND = 1.5
"""How far above its share of the load a replica may go before affinity gives way (bounded load).

Found with ``benchmarks/prefix_cache.py``: less costs cached tokens, twice the share piles up a popular prompt.
"""

ALWAYS_BORNE = 4
"""Requests in flight that are no crowd, however idle the others are."""

BLOCK_BYTES = 512
MAX_BLOCKS = 128
REMEMBERED = 65_536
"""A prompt is looked at in blocks of so many bytes, up to so many; so many are remembered, the oldest forgotten."""


SEEN_BY = 8
"""Replicas of which it is remembered that they have seen a block. A prompt that all share is soon known by many."""


class Replica(Protocol):
    """``weight``: its share relative to the others', more than 0."""

    @property
    def name(self) -> str: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def weight(self) -> float: ...


R = TypeVar("R", bound=Replica)


class Wants(Enum):
    NOTHING = auto()
    SESSION = auto()
    PROMPT = auto()


class Policy(Protocol):
    @property
    def wants(self) -> Wants: ...

    def choose(self, ready: Sequence[R], about: bytes = b"") -> R:
        """One of ``ready``, which is not empty. ``about``: what it wants to know; empty when the request has none."""


class LeastInFlight:
    """The replica with the least in flight for its weight; among equals each in its turn."""

    wants = Wants.NOTHING

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, ready: Sequence[R], about: bytes = b"") -> R:
        number = len(ready)
        if number == 1:
            return ready[0]
        self._turn = first = (self._turn + 1) % number
        least = math.inf
        for place in range(first - number, first):  # below 0 they count from the end
            one = ready[place]
            if not one.in_flight:
                return one
            load = one.in_flight / one.weight
            if load < least:
                chosen, least = one, load
        return chosen


class RoundRobin:
    """Each in its turn, as often as its weight says (smooth weighted round robin, as nginx has it)."""

    wants = Wants.NOTHING

    def __init__(self) -> None:
        self._credit: dict[str, float] = {}

    def choose(self, ready: Sequence[R], about: bytes = b"") -> R:
        credit = {one.name: self._credit.get(one.name, 0.0) + one.weight for one in ready}
        chosen = max(ready, key=lambda one: credit[one.name])
        credit[chosen.name] -= sum(one.weight for one in ready)
        self._credit = credit
        return chosen


class Random:
    """By chance, as often as its weight says."""

    wants = Wants.NOTHING

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()

    def choose(self, ready: Sequence[R], about: bytes = b"") -> R:
        return self._chance.choices(ready, [one.weight for one in ready])[0]


class PowerOfTwo:
    """Two by chance, and of these the one with less in flight for its weight."""

    wants = Wants.NOTHING

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()

    def choose(self, ready: Sequence[R], about: bytes = b"") -> R:
        if len(ready) == 1:
            return ready[0]
        one, other = self._chance.sample(ready, 2)
        return one if _load(one) <= _load(other) else other


class Session:
    """The same replica for the same session, as long as it is ready and not loaded far above the others.

    Rendezvous hashing: when a replica goes, only its own sessions move.
    """

    wants = Wants.SESSION

    def __init__(self) -> None:
        self._otherwise = LeastInFlight()

    def choose(self, ready: Sequence[R], about: bytes = b"") -> R:
        if not about:
            return self._otherwise.choose(ready, about)
        bound = _bound(ready)
        return next(one for one in _rendezvous(ready, about) if one.in_flight < bound(one))


class Prefix:
    """The least loaded of the replicas that have seen the longest beginning of this prompt, if it is not loaded far
    above the others.

    What was seen is remembered as hashes of the prompt's blocks, each over all before it. A prompt that nobody has seen
    goes where there is least in flight.
    """

    wants = Wants.PROMPT

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._seen: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()
        self._remembered = remembered
        self._otherwise = LeastInFlight()

    def choose(self, ready: Sequence[R], about: bytes = b"") -> R:
        blocks = list(_blocks(about))
        chosen = self._known(ready, blocks) or self._otherwise.choose(ready, about)
        alone = (chosen.name,)
        for block in blocks:
            names = self._seen.get(block, alone)
            self._seen[block] = names if chosen.name in names else (alone + names)[:SEEN_BY]
            self._seen.move_to_end(block)
        while len(self._seen) > self._remembered:
            self._seen.popitem(last=False)
        return chosen

    def _known(self, ready: Sequence[R], blocks: Sequence[bytes]) -> R | None:
        bound = _bound(ready)
        by_name = {one.name: one for one in ready}
        for block in reversed(blocks):
            able = [by_name[name] for name in self._seen.get(block, ()) if name in by_name]
            if able and (one := min(able, key=_load)).in_flight < bound(one):
                return one
        return None


POLICIES: Mapping[str, Callable[[], Policy]] = {
    "least_in_flight": LeastInFlight,
    "round_robin": RoundRobin,
    "random": Random,
    "power_of_two": PowerOfTwo,
    "session": Session,
    "prefix": Prefix,
}


def _load(one: Replica) -> float:
    return one.in_flight / one.weight


_in_flight = attrgetter("in_flight")


def _bound(ready: Sequence[Replica]) -> Callable[[Replica], float]:
    """What each may have in flight before this request: its share of all and half as much more, or ``ALWAYS_BORNE``."""
    total = sum(map(_in_flight, ready)) + 1
    weights = sum(one.weight for one in ready)
    return lambda one: max(ALWAYS_BORNE, math.ceil(BOUND * total * one.weight / weights))


def _rendezvous(ready: Sequence[R], key: bytes) -> list[R]:
    """The replicas in the order in which this key wants them; heavier ones are wanted by more keys."""
    return sorted(ready, key=lambda one: one.weight / math.log(_uniform(key, one.name)))


@lru_cache(maxsize=16_384)
def _uniform(key: bytes, name: str) -> float:
    """A number between 0 and 1 that looks random and is always the same for the two."""
    digest = blake2b(key, digest_size=8, key=name.encode()[:64]).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**64


def _blocks(prompt: bytes) -> Iterator[bytes]:
    """A hash for each whole block of the prompt's beginning, over all up to there."""
    so_far = blake2b(digest_size=12)
    for start in range(0, min(len(prompt), MAX_BLOCKS * BLOCK_BYTES) - BLOCK_BYTES + 1, BLOCK_BYTES):
        so_far.update(prompt[start : start + BLOCK_BYTES])
        yield so_far.digest()
