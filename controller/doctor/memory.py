"""Whether the models fit into the memory there is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controller.config.model import Config, Instance
from controller.doctor.finding import Finding, Level
from controller.residency.footprint import Footprint
from controller.residency.memory import HOST, Memory, gib, gpu, total
from runtime.engines.kinds import KINDS


def judge(config: Config, gpus: Mapping[int, int], memory: int) -> Iterator[Finding]:
    """``gpus``: number -> bytes, as the driver tells. ``memory``: this machine's own."""
    yield from _declared(config, gpus, memory)
    yield from _groups(config)
    sized = {one.name: one for one in config.instances if one.footprint is not None and one.launched}
    if not sized:
        cure = "give memory_gib, so that models leave for each other" if len(config.models) > 1 else ""
        yield Finding(Level.OK, "memory", "no instance has memory_gib: nothing is computed", cure)
        return
    capacity = {**{gpu(number): size for number, size in gpus.items()}, HOST: memory, **config.capacity}
    for place in sorted({place for one in sized.values() for place in _of(one).awake}):
        if place in capacity:
            yield from _gpu(place, capacity[place], sized, _staying(config, sized))
    yield from _host(capacity[HOST], HOST in config.capacity, sized)


def _declared(config: Config, gpus: Mapping[int, int], memory: int) -> Iterator[Finding]:
    real = {gpu(number): size for number, size in gpus.items()}
    for place, size in config.capacity.items():
        if place == HOST and size > memory:
            what = f"host.memory_gib is {gib(size)}, and this machine has {gib(memory)}"
            yield Finding(Level.PROBLEM, "memory", what, "make it less, and leave room for everything else")
        elif place != HOST and real and place not in real:
            yield Finding(Level.PROBLEM, "memory", f"{place} is in the YAML, not in this machine", "see nvidia-smi -L")
        elif place in real and size > real[place]:
            what = f"{place} has {gib(real[place])}, and the YAML says {gib(size)}"
            yield Finding(Level.PROBLEM, "memory", what, f"make gpus: {place.removeprefix('gpu')}: memory_gib less")


def _groups(config: Config) -> Iterator[Finding]:
    """Whether of each exclusive group any member can be woken, and one is awake at the start."""
    pinned = [model for model in config.rivals if config.settings_of(model).pinned]
    for model in pinned:
        others = ", ".join(sorted(config.rivals[model]))
        what = f"{model} is pinned, and in an exclusive group: as long as it is awake, nobody wakes {others}"
        yield Finding(Level.PROBLEM, "groups", what, "take it out of the group, or its pinned: true")
    awake = {one.model for one in config.instances if one.start == "awake"}
    if clashing := sorted(model for model in awake if awake & config.rivals.get(model, frozenset())):
        what = f"{', '.join(clashing)} start awake, and one of their exclusive group may be"
        yield Finding(Level.WARNING, "groups", what, "give all but one start: asleep or start: stopped")


def _gpu(place: str, capacity: int, sized: Mapping[str, Instance], staying: Mapping[str, str]) -> Iterator[Finding]:
    """``staying``: who never leaves for another one, and why."""
    about, fits = f"memory of {place}", True
    for name, one in sized.items():
        awake = _of(one).awake.get(place, 0)
        others = total(_asleep(other) for other in sized.values() if other is not one).get(place, 0)
        firm = {other: _of(sized[other]).awake.get(place, 0) for other in staying if other != name}
        if awake > capacity:
            fits = False
            what = f"{name} takes {gib(awake)}, and there are {gib(capacity)}: it can never be awake"
            yield Finding(Level.PROBLEM, about, what, "spread it over more GPUs, or give it less memory")
        elif awake and awake + sum(firm.values()) > capacity:
            fits = False
            stay = ", ".join(f"{other} ({staying[other]}) {gib(size)}" for other, size in firm.items() if size)
            what = f"{name} takes {gib(awake)}, beside what leaves for nobody, {stay}: more than {gib(capacity)}"
            yield Finding(Level.PROBLEM, about, what, "spread them over more GPUs, or let them leave")
        elif awake and awake + others > capacity:
            fits = False
            what = f"{name} takes {gib(awake)}, the others {gib(others)} asleep: more than {gib(capacity)}"
            cure = "have some of them stopped when idle: stop_after_seconds, or start: stopped"
            yield Finding(Level.WARNING, about, what, cure)
    begin = total(_at_start(one) for one in sized.values()).get(place, 0)
    if begin > capacity:
        what = f"what is awake at the start takes {gib(begin)} of {gib(capacity)}"
        yield Finding(Level.PROBLEM, about, what, "give some of them start: asleep or start: stopped")
    elif fits:
        yield Finding(Level.OK, about, f"{gib(begin)} of {gib(capacity)} at the start")


def _host(capacity: int, limited: bool, sized: Mapping[str, Instance]) -> Iterator[Finding]:
    asleep = total(_asleep(one) for one in sized.values()).get(HOST, 0)
    if asleep > capacity and limited:
        what = f"{gib(asleep)} of {gib(capacity)} when all sleep: some will sleep at level 2, and be slower to wake"
        yield Finding(Level.OK, "memory of the host", what)
    elif asleep > capacity:
        what = f"all asleep at level 1 take {gib(asleep)} of {gib(capacity)}"
        cure = "set host.memory_gib, so that some sleep at level 2, or sleep_manager.level: 2"
        yield Finding(Level.WARNING, "memory of the host", what, cure)
    else:
        yield Finding(Level.OK, "memory of the host", f"{gib(asleep)} of {gib(capacity)} when all sleep")


def _staying(config: Config, sized: Mapping[str, Instance]) -> Mapping[str, str]:
    pinned = {name: "pinned" for name, one in sized.items() if config.settings_of(one.model).pinned}
    unable = {name: "cannot sleep" for name, one in sized.items() if not KINDS[one.spec.kind].can_sleep}
    return {**pinned, **unable}


def _of(instance: Instance) -> Footprint:
    assert instance.footprint is not None
    return instance.footprint


def _asleep(instance: Instance) -> Memory:
    return _of(instance).at(instance.sleep.level)


def _at_start(instance: Instance) -> Memory:
    if instance.start == "stopped":
        return {}
    return _of(instance).awake if instance.start == "awake" else _asleep(instance)
