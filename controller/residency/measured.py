"""What measuring says: who holds what, what that makes of a footprint, and whether memory has been given back. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from controller.config.memory import ASLEEP_GIB
from controller.residency.footprint import Footprint
from controller.residency.memory import GIB, HOST, NOTHING, Memory, gib, gpu, larger, minus
from runtime.gpus import Gpu

RESERVE = GIB // 2
"""What is left alone of each GPU whose size is measured: for what nobody counts."""

SLACK = GIB // 4
"""Less than this is no difference."""

PART = 0.1
"""Nor is less than this part of the whole."""


def capacity(gpus: Sequence[Gpu]) -> dict[str, int]:
    """All but a little; where more is in use, that: it has fitted, and may wake again."""
    return {gpu(one.number): max(one.total - RESERVE, one.total - one.free) for one in gpus}


def held_by(pids: Collection[int], gpus: Sequence[Gpu]) -> dict[str, int]:
    """What these processes hold of each GPU. A GPU of which they hold nothing is not in it."""
    sums = {gpu(one.number): sum(size for pid, size in one.processes.items() if pid in pids) for one in gpus}
    return {place: size for place, size in sums.items() if size}


def free_of(gpus: Sequence[Gpu]) -> dict[str, int]:
    return {gpu(one.number): one.free for one in gpus}


def is_elastic(environment: Mapping[str, str]) -> bool:
    """Whether its KV cache grows and shrinks with use (kvcached): what it must have is what it has while it is idle."""
    return environment.get("ENABLE_KVCACHED", "").strip().lower() in ("1", "true")


def awake_again(known: Memory, seen: Memory, *, elastic: bool) -> Memory:
    """Of two measurements the larger; of an elastic cache the smaller, for the rest is given back when it is asked."""
    if not known or not elastic:
        return larger(known, seen)
    return {place: min(known.get(place, size), size) for place, size in seen.items()}


def completed(measured: Footprint) -> Footprint:
    """With careful figures for levels that it was not seen at yet."""
    awake = measured.awake
    kept = {place: min(size, round(ASLEEP_GIB * GIB)) for place, size in awake.items()}
    first = {HOST: sum(awake.values()), **measured.asleep.get(1, kept)}
    return Footprint(awake, {1: first, 2: measured.asleep.get(2, kept)})


def differences(declared: Footprint, measured: Footprint) -> Iterator[tuple[str, str]]:
    """Where the figures of the YAML are wrong, and by how much.

    Asleep, only where they are too small: those that are there by default are careful.
    """
    for place, size in measured.awake.items():
        said = declared.awake.get(place, 0)
        if _differ(size, said):
            yield f"awake {place}", f"{gib(size)} on {place} awake, not {gib(said)}"
    for level, amount in measured.asleep.items():
        for place, size in amount.items():
            said = declared.asleep.get(level, NOTHING).get(place, 0)
            if size > said and _differ(size, said):
                yield f"{level} {place}", f"{gib(size)} on {place} asleep at level {level}, not {gib(said)}"


def given_back(held: Memory, target: Memory) -> bool:
    """Whether who ``held`` that has come down to ``target``, or near it."""
    return all(size <= target.get(place, 0) + SLACK for place, size in held.items())


def has_grown(before: Memory, now: Memory, expected: Memory) -> bool:
    """Whether as much more is free as was ``expected``, or nearly."""
    return all(
        now.get(place, 0) - before.get(place, 0) >= size * (1 - PART) - SLACK for place, size in expected.items()
    )


def is_steady(seen: Sequence[Memory], times: int) -> bool:
    """Whether the last so many looks saw the same."""
    last = seen[-times:]
    return len(last) == times and all(
        abs(change) <= SLACK // 4 for one in last for change in minus(one, last[-1]).values()
    )


def _differ(one: int, other: int) -> bool:
    return abs(one - other) > max(SLACK, PART * other)
