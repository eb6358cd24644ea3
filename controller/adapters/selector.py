"""Which instances of the YAML an adapter may be loaded on at all. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controller.adapters.spec import ENABLED_LABEL, MODEL_LABEL, AdapterSpec
from controller.config.model import Config, Instance

_TRUE = frozenset({"true", "1", "yes", "on"})


def base_of(config: Config, spec: AdapterSpec) -> str | None:
    """The model that ``spec`` is for, by the name it counts under; None when no instance serves it."""
    return next((one.model for one in config.instances if spec.base in one.names), None)


def selected(instances: Iterable[Instance], spec: AdapterSpec) -> tuple[Instance, ...]:
    return tuple(one for one in instances if spec.base in one.names and _matches(one, spec))


def wants_adapters(instance: Instance) -> bool:
    """Whether its labels say that adapters are to be loaded on it."""
    return instance.labels.get(ENABLED_LABEL, "").lower() in _TRUE


def _matches(instance: Instance, spec: AdapterSpec) -> bool:
    for key, wanted in spec.pod_selector.match_labels.items():
        if key == MODEL_LABEL:
            if wanted not in instance.names:
                return False
        elif instance.labels.get(key, "true" if key == ENABLED_LABEL else None) != wanted:
            return False
    return True
