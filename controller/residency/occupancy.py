"""Engines that the YAML has lost, as their launches remember them: while they run, what they hold is not free. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from controller.config.model import Config, Instance, SleepSettings
from controller.residency.footprint import Footprint
from runtime.engines.spec import EngineSpec
from state.launches import Launch, Occupant


def occupant_of(instance: Instance) -> Occupant:
    figures = instance.footprint or Footprint({})
    return Occupant(instance.model, instance.spec.kind, instance.spec.base_url, figures.awake, figures.asleep)


def lost(config: Config, launches: Mapping[str, Launch]) -> list[Instance]:
    """Those of ``launches`` that ``config`` has not. What listens where one of its own does is that one."""
    names = {one.name for one in config.instances}
    urls = {one.spec.base_url for one in config.instances}
    others = [one for name, one in launches.items() if name not in names]
    return [_instance(one, one.occupant) for one in others if one.occupant is not None and one.occupant.url not in urls]


def _instance(launch: Launch, occupant: Occupant) -> Instance:
    """Of which nothing is asked, and that is not started again."""
    model, name = occupant.model, launch.instance
    spec = EngineSpec(name, occupant.kind, model, host="", port=0, base_url=occupant.url, served_names=(model,))
    figures = Footprint(occupant.awake, occupant.asleep) if occupant.awake else None
    return Instance(name, model, (), spec, SleepSettings(), launch.session, footprint=figures)
