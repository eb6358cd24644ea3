"""Models of which one at most may be awake, and more are."""

from __future__ import annotations

from controller.fleet.fleet import Fleet
from controller.fleet.state import State


def clash(fleet: Fleet) -> bool:
    """Whether models are awake together that may not be."""
    return any(has_rival(fleet, model) for model in fleet.config.rivals if _is_ready(fleet, model))


def has_rival(fleet: Fleet, model: str) -> bool:
    """Whether another one is awake that may not be awake with it."""
    return any(_is_ready(fleet, other) for other in fleet.config.rivals.get(model, ()))


def _is_ready(fleet: Fleet, model: str) -> bool:
    replicas = fleet.models.get(model)
    return replicas is not None and any(one.state is State.READY for one in replicas.instances)
