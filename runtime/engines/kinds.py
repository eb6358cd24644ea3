"""The engine kinds: the only module that names them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx2

from runtime.engines.base import Engine
from runtime.engines.openai import command as openai_command
from runtime.engines.openai.client import OpenAIEngine
from runtime.engines.sglang import command as sglang_command
from runtime.engines.sglang import metrics as sglang_metrics
from runtime.engines.sglang.client import SglangEngine
from runtime.engines.sim import client as sim_client
from runtime.engines.sim import command as sim_command
from runtime.engines.sim import metrics as sim_metrics
from runtime.engines.spec import ArgumentFacts, Capabilities, Command, EngineSpec
from runtime.engines.vllm import command as vllm_command
from runtime.engines.vllm import metrics as vllm_metrics
from runtime.engines.vllm.client import VllmEngine
from runtime.metrics.rules import Rules


@dataclass(frozen=True, slots=True)
class Kind:
    """``command`` is None for a kind that can be routed to but not started from a model name alone.

    ``metrics``: how it calls the standard metrics; a kind without any tells nothing that could be understood.

    ``uses_gpu``: without a word about GPUs in the YAML it takes any, and is started after those that do so too.
    """

    connect: Callable[[EngineSpec, httpx2.AsyncClient, float], Engine]
    facts: Callable[[str, Sequence[str]], ArgumentFacts]
    capabilities: Callable[[EngineSpec], Capabilities]
    sleep_obstacle: Callable[[Sequence[str], Mapping[str, str], bool], str | None]
    command: Callable[[EngineSpec], Command] | None
    metrics: Rules = field(default_factory=dict)
    can_sleep: bool = True
    uses_gpu: bool = True


KINDS: Mapping[str, Kind] = {
    "vllm": Kind(
        VllmEngine,
        vllm_command.facts,
        vllm_command.capabilities,
        vllm_command.sleep_obstacle,
        vllm_command.command,
        metrics=vllm_metrics.RULES,
    ),
    "sglang": Kind(
        SglangEngine,
        sglang_command.facts,
        sglang_command.capabilities,
        sglang_command.sleep_obstacle,
        sglang_command.command,
        metrics=sglang_metrics.RULES,
    ),
    "openai": Kind(
        OpenAIEngine,
        openai_command.facts,
        openai_command.capabilities,
        openai_command.sleep_obstacle,
        None,
        can_sleep=False,
        uses_gpu=False,
    ),
    "sim": Kind(
        sim_client.connect,
        sim_command.facts,
        sim_command.capabilities,
        sim_command.sleep_obstacle,
        sim_command.command,
        metrics=sim_metrics.RULES,
        uses_gpu=False,
    ),
}

SYNONYMS: Mapping[str, str] = {"sgl": "sglang"}
"""Other spellings that kvcached's YAML files use."""

SIDECAR_SYNONYMS: Mapping[str, str] = {**SYNONYMS, "vllmdisaggregated": "vllm"}
"""Those that a sidecar's command line knows: Kthena Runtime's are among them."""


def dialect(spec: EngineSpec) -> str:
    """The kind as whose client one speaks to it: the simulated engine has that of another."""
    return "sglang" if spec.kind == "sim" and sim_command.is_sglang(spec.words) else spec.kind


def command(spec: EngineSpec) -> Command:
    """How to start ``spec``: its own command if it has one, else what its kind says. The user's env comes on top."""
    build = KINDS[spec.kind].command
    if spec.command:
        extra = Command(spec.command)
    elif build is not None:
        extra = build(spec)
    else:
        raise ValueError(f"an engine of kind {spec.kind!r} needs a command or a url")
    gpus = {}
    if spec.gpus:  # by the numbers that the driver gives them; CUDA's own come from a guess at which is fastest
        gpus = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, spec.gpus))}
    return Command(extra.argv, {**gpus, **extra.env, **spec.env})
