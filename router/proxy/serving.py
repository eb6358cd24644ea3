"""What the data path keeps for one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from controller.config.model import Config
from controller.config.schema import ModelSection
from router.proxy.chooser import Chooser
from router.proxy.queue import Queue
from router.traffic.monitor import ModelTraffic, TrafficMonitor


@dataclass(frozen=True, slots=True)
class Serving:
    """``queue``: None for a model without ``max_in_flight``. ``keepalive``: ``router.keepalive_after_seconds``."""

    traffic: ModelTraffic
    chooser: Chooser
    queue: Queue | None
    keepalive: float | None = None


def serving(config: Config, traffic: TrafficMonitor, before: Mapping[str, Serving]) -> dict[str, Serving]:
    """By model. What there was ``before`` is kept where it still fits, with all who wait."""
    found = {}
    for model in config.models:
        settings, old = config.settings_of(model), before.get(model)
        chooser = old.chooser if old is not None and old.chooser.fits(settings) else Chooser(settings)
        queue = _queue(model, settings, old.queue if old is not None else None)
        found[model] = Serving(traffic.models[model], chooser, queue, config.router.keepalive_after_seconds)
    return found


def _queue(model: str, settings: ModelSection, old: Queue | None) -> Queue | None:
    limit = settings.max_in_flight
    if old is not None:
        old.become(limit if limit is not None else math.inf, settings)
    if limit is None:
        return None
    return old or Queue(model, limit, settings)
