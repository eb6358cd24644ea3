"""What the data path keeps for one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.config.model import Config
from router.proxy.chooser import Chooser
from router.proxy.queue import Queue
from router.traffic.monitor import ModelTraffic, TrafficMonitor


@dataclass(frozen=True, slots=True)
class Serving:
    """``queue``: None for a model without ``max_in_flight``."""

    traffic: ModelTraffic
    chooser: Chooser
    queue: Queue | None


def serving(config: Config, traffic: TrafficMonitor) -> Mapping[str, Serving]:
    """By model."""
    found = {}
    for model in config.models:
        settings = config.settings_of(model)
        limit = settings.max_in_flight
        queue = Queue(model, limit, settings) if limit is not None else None
        found[model] = Serving(traffic.models[model], Chooser(settings), queue)
    return found
