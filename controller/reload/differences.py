"""What a changed YAML would change of the configuration in force, and how. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from controller.config.model import Config, Instance
from controller.launch import plan
from controller.launch.mask import HIDDEN, URL_PASSWORD
from controller.launch.unit import Start, engine_unit
from controller.residency.footprint import Footprint
from controller.residency.memory import HOST, NOTHING, Memory, gib

ROUTER_ONCE = ("enable_router", "router_host", "router_port")
ONCE = ("state_url", "adapters_folder", "credentials_file", "credentials")
"""What a gateway reads when it starts, and not again: of the section ``router``, and of the whole."""


class Step(StrEnum):
    IN_PLACE = "in place"
    RESTART = "restart"  # its engine has another command
    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Change:
    """One key. ``old`` and ``new`` as they may be shown; of a secret only that it is another."""

    key: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class InstanceChange:
    """``reasons``: how the command differs."""

    name: str
    step: Step
    changes: tuple[Change, ...] = ()
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        details = "; ".join([*self.reasons, *map(str, self.changes)])
        return f"{self.name}: {self.step}" + (f" ({details})" if details else "")


@dataclass(frozen=True, slots=True)
class Differences:
    """``settings`` apply in place, ``gateway`` when the gateway is started anew. Instances without any are left out."""

    settings: tuple[Change, ...] = ()
    gateway: tuple[Change, ...] = ()
    instances: tuple[InstanceChange, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.settings or self.gateway or self.instances)

    def lines(self) -> list[str]:
        later = [f"{change} (when the gateway is started anew)" for change in self.gateway]
        return [*map(str, self.settings), *later, *map(str, self.instances)]


def compare(running: Config, wanted: Config) -> Differences:
    settings, gateway = [*_settings(running, wanted)], [*_of_the_gateway(running, wanted)]
    old = {instance.name: instance for instance in running.instances}
    new = {instance.name: instance for instance in wanted.instances}
    instances = [_changed(running, old[name], wanted, new[name], settings) for name in new if name in old]
    return Differences(
        settings=tuple(settings),
        gateway=tuple(gateway),
        instances=(
            *(change for change in instances if change.changes or change.reasons),
            *(InstanceChange(name, Step.ADD) for name in new if name not in old),
            *(InstanceChange(name, Step.REMOVE) for name in old if name not in new),
        ),
    )


def in_force(running: Config, wanted: Config, renewed: Collection[str] = ()) -> Config:
    """What of ``wanted`` can be so at once.

    An engine that must be restarted is spoken to as before, until it is one of the ``renewed``; what a gateway reads
    only when it starts stays what it was.
    """
    old = {instance.name: instance for instance in running.instances}
    instances = []
    for instance in wanted.instances:
        before = old.get(instance.name)
        waits = before is not None and instance.name not in renewed and restarts(running, before, wanted, instance)
        instances.append(_as_it_runs(before, instance) if before is not None and waits else instance)
    router = wanted.router.model_copy(update={key: getattr(running.router, key) for key in ROUTER_ONCE})
    kept: dict[str, Any] = {key: getattr(running, key) for key in ONCE}
    return replace(wanted, router=router, instances=tuple(instances), **kept)


def restarts(running: Config, old: Instance, wanted: Config, new: Instance) -> tuple[str, ...]:
    """How the command of an engine differs that the launcher starts; empty when it is the same, or runs elsewhere."""
    if not new.launched:
        return ()
    if not old.launched:
        return ("it ran elsewhere until now",)
    return plan.changes(_start(running, old), _start(wanted, new))


def _start(config: Config, instance: Instance) -> Start:
    return engine_unit(config, instance, {}).record


def _as_it_runs(old: Instance, new: Instance) -> Instance:
    """The new settings of an engine that still is the old one, and knows itself by its old names."""
    if old.model != new.model:
        return old
    names = dict.fromkeys((*old.spec.served_names, *new.names))
    return replace(new, spec=old.spec, venv=old.venv, names=tuple(names))


def _settings(running: Config, wanted: Config) -> Iterator[Change]:
    yield from (change for change in _section("router", running.router, wanted.router) if change.key not in _OWN)
    if running.api_key != wanted.api_key and running.router.api_key_env == wanted.router.api_key_env:
        yield Change("router.api_key_env", "a key", "another key")
    yield from _section("sleep_manager", running.sleep, wanted.sleep)
    yield from _section("launch", running.launch, wanted.launch)
    yield from _amounts("memory.", running.capacity, wanted.capacity)
    yield from _section("residency", running.residency, wanted.residency)
    yield from _mapping("groups", _rivals(running), _rivals(wanted))
    yield from _value("launch_delay_seconds", running.launch_delay_seconds, wanted.launch_delay_seconds)
    yield from _value("adapter_store.refresh_seconds", running.adapter_refresh_seconds, wanted.adapter_refresh_seconds)
    for model in dict.fromkeys((*running.model_settings, *wanted.model_settings)):
        yield from _section(f"models.{model}", running.settings_of(model), wanted.settings_of(model))
    for name in dict.fromkeys((*running.adapters, *wanted.adapters)):
        old, new = running.adapters.get(name), wanted.adapters.get(name)
        if old != new:  # which may hold a key
            was, now = ("there" if one is not None else "none" for one in (old, new))
            yield Change(f"adapters.{name}", was, now if was != now else "another")


def _of_the_gateway(running: Config, wanted: Config) -> Iterator[Change]:
    yield from (change for change in _section("router", running.router, wanted.router) if change.key in _OWN)
    yield from _value("state.url", running.state_url, wanted.state_url)
    yield from _value("adapter_store.folder", running.adapters_folder, wanted.adapters_folder)
    yield from _value("adapter_store.credentials_file", running.credentials_file, wanted.credentials_file)


_OWN = frozenset(f"router.{key}" for key in ROUTER_ONCE)


def _amounts(prefix: str, old: Memory, new: Memory) -> Iterator[Change]:
    for place in dict.fromkeys((*old, *new)):
        was, now = old.get(place), new.get(place)
        if was != now:
            yield Change(prefix + place, *("none" if size is None else gib(size) for size in (was, now)))


def _rivals(config: Config) -> dict[str, str]:
    return {model: ", ".join(sorted(others)) for model, others in config.rivals.items()}


def _changed(
    running: Config, old: Instance, wanted: Config, new: Instance, general: Collection[Change]
) -> InstanceChange:
    """What is the same for all instances is told among the settings."""
    reasons = restarts(running, old, wanted, new)
    found = [
        *_value("model", old.model, new.model),
        *_value("engine", old.spec.kind, new.spec.kind),
        *_value("url", old.spec.base_url, new.spec.base_url),
        *_value("aliases", _aliases(old), _aliases(new)),
        *_value("weight", old.weight, new.weight),
        *_footprint(old.footprint or Footprint(NOTHING), new.footprint or Footprint(NOTHING)),
        *_value("start", old.start, new.start),
        *_value("sidecar", _beside(old), _beside(new)),
        *_mapping("labels", old.labels, new.labels),
    ]
    if old.spec.api_key != new.spec.api_key:
        found.append(Change("api_key_env", _key(old), "another key" if old.spec.api_key else _key(new)))
    told = set(general)
    for section, prefix, was, now in (
        ("sleep_manager", "", old.sleep, new.sleep),
        ("timeouts", "router.", old.timeouts, new.timeouts),
    ):
        own = _section(section, was, now)
        found += [change for change in own if replace(change, key=prefix + change.key) not in told]
    return InstanceChange(new.name, Step.RESTART if reasons else Step.IN_PLACE, tuple(found), reasons)


def _section(name: str, old: BaseModel, new: BaseModel) -> Iterator[Change]:
    for key in type(new).model_fields:
        was, now = getattr(old, key), getattr(new, key)
        if isinstance(now, BaseModel):
            yield from _section(f"{name}.{key}", was, now)
        else:
            yield from _value(f"{name}.{key}", was, now)


def _footprint(old: Footprint, new: Footprint) -> Iterator[Change]:
    yield from _amounts("memory_gib.", old.awake, new.awake)
    for change in _amounts("asleep_memory_gib.", old.at(0), new.at(0)):
        yield replace(change, key="host_memory_gib") if change.key.endswith(f".{HOST}") else change


def _beside(instance: Instance) -> str | None:
    return instance.sidecar.url if instance.sidecar is not None else None


def _mapping(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    for key in dict.fromkeys((*old, *new)):
        yield from _value(f"{name}.{key}", old.get(key), new.get(key))


def _value(key: str, old: Any, new: Any) -> Iterator[Change]:
    if old != new:
        was, now = _shown(old), _shown(new)
        yield Change(key, was, now if now != was else f"another {now}")


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.15g}"
    return URL_PASSWORD.sub(HIDDEN, str(value))


def _aliases(instance: Instance) -> tuple[str, ...]:
    own = {instance.model, *instance.spec.served_names}
    return tuple(name for name in instance.names if name not in own)


def _key(instance: Instance) -> str:
    return "a key" if instance.spec.api_key else "none"
