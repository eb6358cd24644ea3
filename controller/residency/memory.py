"""Amounts of memory, by place. In whole bytes, so that sums are exact. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

GIB = 2**30
HOST = "host"

Memory = Mapping[str, int]
"""Place -> bytes. A place is one GPU (``gpu0``) or the ``host``; one that is not in it has none."""

NOTHING: Memory = {}


def gpu(number: int) -> str:
    return f"gpu{number}"


def total(amounts: Iterable[Memory]) -> dict[str, int]:
    found: dict[str, int] = {}
    for amount in amounts:
        for place, size in amount.items():
            found[place] = found.get(place, 0) + size
    return found


def minus(one: Memory, other: Memory) -> dict[str, int]:
    return {place: one.get(place, 0) - other.get(place, 0) for place in {**one, **other}}


def larger(one: Memory, other: Memory) -> dict[str, int]:
    """Of each place the larger amount: what is needed on the way from one to the other."""
    return {place: max(one.get(place, 0), other.get(place, 0)) for place in {**one, **other}}


def lacks(need: Memory, free: Memory) -> dict[str, int]:
    """What ``need`` has more than ``free``. A place of which ``free`` says nothing has no limit."""
    return {
        place: size - free[place] for place, size in need.items() if size > 0 and place in free and size > free[place]
    }


def gib(size: int) -> str:
    """As people write it."""
    return f"{size / GIB:.4g} GiB"
