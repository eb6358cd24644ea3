"""How SGLang is started, and what its arguments tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.engines.arguments import has_flag, named_paths, number, option, options
from runtime.engines.spec import ArgumentFacts, Capabilities, Command, EngineSpec, LoraLimits

SLEEP_FLAG = "--enable-memory-saver"
BACKUP_FLAG = "--enable-weights-cpu-backup"
LORA_FLAGS = (("--enable-lora",), ("--max-lora-rank", "64"), ("--lora-target-modules", "all"))
"""Without adapters at its start it must be told how large those that come may be."""


def command(spec: EngineSpec) -> Command:
    argv = [spec.python, "-m", "sglang.launch_server", "--model-path", spec.model, *spec.args]
    if option(spec.args, "--host") is None:
        argv += ["--host", spec.host]
    if option(spec.args, "--port") is None:
        argv += ["--port", str(spec.port)]
    if spec.sleep_flags and not has_flag(spec.args, SLEEP_FLAG):
        argv.append(SLEEP_FLAG)
    if spec.takes_adapters:
        for flag, *values in LORA_FLAGS:
            if not has_flag(spec.args, flag):
                argv += [flag, *values]
    if spec.api_key and option(spec.args, "--api-key") is None:
        argv += ["--api-key", spec.api_key]  # SGLang reads its key from nowhere else
    return Command(tuple(argv))


def facts(model: str, args: Sequence[str]) -> ArgumentFacts:
    names = options(args, "--served-model-name") or (model,)
    # Asked for an adapter under its bare name, SGLang answers with the base model and says nothing.
    loras = named_paths(args, "--lora-paths", "lora_name")
    return ArgumentFacts(
        host=option(args, "--host"),
        port=option(args, "--port"),
        served_names=names,
        adapters={lora: f"{names[0]}:{lora}" for lora in loras},
        lora=LoraLimits(
            number(args, "--max-lora-rank"), number(args, "--max-loras-per-batch"), number(args, "--max-loaded-loras")
        ),
    )


def capabilities(spec: EngineSpec) -> Capabilities:
    """One level of sleep: whether the weights survive a release of memory is decided at the start."""
    keeps_weights = has_flag(spec.words, BACKUP_FLAG)
    return Capabilities(sleep=True, tells_sleep=False, adapters=True, levels=(1,) if keeps_weights else (2,))


def sleep_obstacle(args: Sequence[str], env: Mapping[str, str], sleep_flags: bool) -> str | None:
    """Why it cannot be put to sleep; None when it can."""
    if not sleep_flags and not has_flag(args, SLEEP_FLAG):
        return f"SGLang releases memory only when started with {SLEEP_FLAG}"
    return None
