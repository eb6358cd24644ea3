"""What the arguments of an unknown server tell: the usual flags, if it has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.engines.arguments import option, options
from runtime.engines.spec import ArgumentFacts, Capabilities, EngineSpec


def facts(model: str, args: Sequence[str]) -> ArgumentFacts:
    return ArgumentFacts(
        host=option(args, "--host"),
        port=option(args, "--port"),
        served_names=options(args, "--served-model-name") or (model,),
    )


def capabilities(spec: EngineSpec) -> Capabilities:
    return Capabilities(sleep=False, tells_sleep=True, adapters=False)


def sleep_obstacle(args: Sequence[str], env: Mapping[str, str], sleep_flags: bool) -> str | None:
    return "an engine of kind 'openai' has no way to sleep"
