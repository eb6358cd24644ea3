"""Which instances of the YAML an adapter may be loaded on at all. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from controller.adapters.spec import ENABLED_LABEL, MODEL_LABEL, AdapterSpec

_TRUE = frozenset({"true", "1", "yes", "on"})


def selects(spec: AdapterSpec, names: Collection[str], labels: Mapping[str, str]) -> bool:
    """Whether ``spec`` allows an instance whose model has these ``names``, and which has these ``labels``."""
    if spec.base not in names:
        return False
    for key, wanted in spec.pod_selector.match_labels.items():
        if key == MODEL_LABEL:
            if wanted not in names:
                return False
        elif labels.get(key, "true" if key == ENABLED_LABEL else None) != wanted:
            return False
    return True


def wants_adapters(labels: Mapping[str, str]) -> bool:
    """Whether they say that adapters are to be loaded."""
    return labels.get(ENABLED_LABEL, "").lower() in _TRUE
