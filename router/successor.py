"""The configuration of a gateway that another takes over from: every name leads to that one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from controller.config.model import Config, Instance
from runtime.engines.spec import EngineSpec


def successor(config: Config, names: Mapping[str, Iterable[str]], url: str) -> Config:
    """``names``: model -> all that leads to it now, adapters too."""
    instances = tuple(_instance(config, model, tuple(names[model]), url) for model in config.models)
    return replace(config, instances=instances, model_settings={}, rivals={}, capacity={}, adapters={})


def _instance(config: Config, model: str, names: tuple[str, ...], url: str) -> Instance:
    before, address = config.instances_of(model)[0], urlsplit(url)
    name = f"the next gateway, for {model}"
    spec = EngineSpec(
        name=name,
        kind="openai",
        model=model,
        host=address.hostname or "",
        port=address.port or 0,
        base_url=url,
        served_names=names,
        remote=True,
        gateway=True,
        api_key=config.api_key,
    )
    sleep = before.sleep.model_copy(update={"auto_sleep_enabled": False})
    return Instance(name, model, names, spec, sleep, session="", timeouts=config.router.timeouts)
