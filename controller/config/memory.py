"""What each instance takes of which memory, from what the file says. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from controller.config.schema import ConfigFile, InstanceSection
from controller.config.values import EVERYWHERE
from controller.residency.footprint import Footprint
from controller.residency.memory import GIB, HOST, Memory, gpu

ASLEEP_GIB = 2.0
"""What a sleeping vLLM keeps on each GPU, at most: 1 to 2 GiB were seen."""


def capacity(written: ConfigFile) -> Memory:
    """Of the places the file gives figures for."""
    found = {gpu(number): _bytes(section.memory_gib) for number, section in written.gpus.items()}
    if written.host is not None:
        found[HOST] = _bytes(written.host.memory_gib)
    return found


def gpus_of(section: InstanceSection, written: ConfigFile) -> tuple[int, ...]:
    """Where its memory is: the GPUs it names, or the only one there is."""
    named = tuple(number for number in section.memory_gib or () if number != EVERYWHERE)
    if named:
        return named
    return section.gpus or (tuple(written.gpus) if len(written.gpus) == 1 else ())


def footprint(section: InstanceSection, written: ConfigFile) -> Footprint | None:
    """None when the file gives no figure: then it takes no part in residency."""
    if section.memory_gib is None:
        return None
    gpus = gpus_of(section, written)
    awake = _shares(section.memory_gib, gpus)
    asleep = section.asleep_memory_gib
    kept = dict.fromkeys(awake, _bytes(ASLEEP_GIB)) if asleep is None else _shares(asleep, gpus)
    kept = {place: min(size, awake.get(place, 0)) for place, size in kept.items()}
    host = sum(awake.values()) if section.host_memory_gib is None else _bytes(section.host_memory_gib)
    return Footprint(awake, {1: {**kept, HOST: host}, 2: kept})


def _shares(amounts: Mapping[int, float], gpus: tuple[int, ...]) -> dict[str, int]:
    if EVERYWHERE in amounts:
        return {gpu(number): -(-_bytes(amounts[EVERYWHERE]) // len(gpus)) for number in gpus}
    return {gpu(number): _bytes(size) for number, size in amounts.items()}


def _bytes(gib: float) -> int:
    return round(gib * GIB)
