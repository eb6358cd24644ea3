"""All engines' metrics on one page, under the standard names: asked at once, read off the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from controller.fleet.fleet import Fleet
from controller.fleet.instance import Instance
from controller.fleet.state import State
from runtime.engines.base import EngineError
from runtime.engines.kinds import KINDS
from runtime.metrics.names import VOCABULARIES
from runtime.metrics.rules import Rules
from runtime.metrics.standardize import Unparseable, joined, labelled, parse, relevant, standard_families
from runtime.metrics.text import render
from runtime.single_flight import SingleFlight

log = logging.getLogger(__name__)

DEADLINE = 5.0
"""Seconds that the slowest engine has. Prometheus gives up after 10."""
FRESH = 1.0
"""Seconds for which a page is given again."""
VOCABULARY = VOCABULARIES["torpor"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One instance when it was asked. ``page`` is None when it did not answer, or has no metrics to read."""

    model: str
    instance: str
    state: State
    rules: Rules
    up: bool
    page: str | None


class EngineMetrics:
    """One look at all engines serves all who ask meanwhile. Sleeping engines are asked too: that wakes none of them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._look = SingleFlight(self._page, FRESH)

    async def page(self) -> str:
        return await self._look.get()

    async def close(self) -> None:
        await self._look.close()

    async def _page(self) -> str:
        seen = await asyncio.gather(*(_ask(instance) for instance in list(self._fleet.instances.values())))
        return await asyncio.to_thread(whole, seen)


async def _ask(instance: Instance) -> Seen:
    spec, state = instance.config.spec, instance.state
    rules = KINDS[spec.kind].metrics
    up, page = False, None
    try:
        async with asyncio.timeout(DEADLINE):
            if rules:
                page, up = await instance.engine.metrics(), True
            else:
                up = bool(await instance.engine.healthy())
    except (EngineError, TimeoutError) as silent:
        log.debug("no metrics of %s: %s", instance.name, silent)
    return Seen(instance.config.model, instance.name, state, rules, up, page)


def whole(seen: Sequence[Seen]) -> str:
    """The page. Pure, and slow for many engines: call it in a thread."""
    ups = GaugeMetricFamily("torpor:engine_up", "1 when it answered.", labels=["model", "instance"])
    states = GaugeMetricFamily(
        "torpor:engine_state", "1 for the state it is in.", labels=["model", "instance", "state"]
    )
    families: list[Metric] = []
    for one in seen:
        found = _families(one)
        ups.add_metric([one.model, one.instance], float(one.up and found is not None))
        for state in State:
            states.add_metric([one.model, one.instance, state], float(one.state is state))
        families += labelled(found or [], {"model": one.model, "instance": one.instance})
    return render([ups, states, *joined(families)])


def _families(one: Seen) -> list[Metric] | None:
    """None when its page cannot be read."""
    if one.page is None:
        return []
    try:
        return standard_families(parse(relevant(one.page, one.rules)), one.rules, VOCABULARY)
    except Unparseable as odd:
        log.warning("the metrics of %s cannot be read: %s", one.instance, odd)
        return None
