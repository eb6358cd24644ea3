"""Whether the models fit into the memory there is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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
    staying = _staying(config, sized)
    for place in sorted({place for one in sized.values() for place in _of(one).awake}):
        if place in capacity:
            yield from _gpu(place, capacity[place], sized, staying)
    leaving = [one for name, one in sized.items() if name not in staying]
    yield from _host(capacity[HOST], HOST in config.capacity, leaving)


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
    resting = {name: _resting(one, staying) for name, one in sized.items()}
    for name, one in sized.items():
        awake = _of(one).awake.get(place, 0)
        others = total(resting[other] for other in sized if other != name).get(place, 0)
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
            what = f"{name} takes {gib(awake)}, the others {gib(others)} at the least: more than {gib(capacity)}"
            cure = "have some of them stopped when idle: stop_after_seconds, or start: stopped"
            yield Finding(Level.WARNING, about, what, cure)
    begin = total(_at_start(one) for one in sized.values()).get(place, 0)
    if begin > capacity:
        what = f"what is awake at the start takes {gib(begin)} of {gib(capacity)}"
        yield Finding(Level.PROBLEM, about, what, "give some of them start: asleep or start: stopped")
    elif fits:
        yield Finding(Level.OK, about, f"{gib(begin)} of {gib(capacity)} at the start")


def _host(capacity: int, limited: bool, leaving: Sequence[Instance]) -> Iterator[Finding]:
    """``leaving``: who sleeps at all. ``limited``: the gateway minds the capacity, and has some sleep deeper."""
    about, asleep = "memory of the host", total(_asleep(one) for one in leaving).get(HOST, 0)
    lasting = {one.name: _of(one).at(_levels(one)[-1]).get(HOST, 0) for one in leaving}
    if sum(lasting.values()) > capacity:
        names = ", ".join(name for name, size in lasting.items() if size)
        what = f"{names}, which cannot drop their weights, take {gib(sum(lasting.values()))} of {gib(capacity)} asleep"
        cure = "start some without what keeps the weights (SGLang: --enable-weights-cpu-backup), or set start: stopped"
        yield Finding(Level.WARNING, about, what, cure)
    elif asleep > capacity and limited:
        what = f"{gib(asleep)} of {gib(capacity)} when all sleep: some will sleep at level 2, and be slower to wake"
        yield Finding(Level.OK, about, what)
    elif asleep > capacity:
        what = f"all asleep take {gib(asleep)} of {gib(capacity)}"
        cure = "set host.memory_gib, so that some sleep at level 2, or sleep_manager.level: 2"
        yield Finding(Level.WARNING, about, what, cure)
    else:
        yield Finding(Level.OK, about, f"{gib(asleep)} of {gib(capacity)} when all sleep")


def _staying(config: Config, sized: Mapping[str, Instance]) -> Mapping[str, str]:
    pinned = {name: "pinned" for name, one in sized.items() if config.settings_of(one.model).pinned}
    unable = {name: "cannot sleep" for name, one in sized.items() if not _levels(one)}
    return {**pinned, **unable}


def _of(instance: Instance) -> Footprint:
    assert instance.footprint is not None
    return instance.footprint


def _levels(instance: Instance) -> tuple[int, ...]:
    """At which it may sleep, the first unless there is no room for that; none where it cannot sleep."""
    able = KINDS[instance.spec.kind].capabilities(instance.spec)
    return able.levels_from(instance.sleep.level) if able.sleep else ()


def _asleep(instance: Instance) -> Memory:
    return _of(instance).at(_levels(instance)[0])


def _resting(instance: Instance, staying: Mapping[str, str]) -> Memory:
    return _of(instance).awake if instance.name in staying else _asleep(instance)


def _at_start(instance: Instance) -> Memory:
    if instance.start == "stopped":
        return {}
    return _asleep(instance) if instance.start == "asleep" and _levels(instance) else _of(instance).awake
