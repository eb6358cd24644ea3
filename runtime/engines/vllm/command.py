"""How vLLM is started, and what its arguments tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.engines.arguments import has_flag, named_paths, number, option, options
from runtime.engines.spec import ArgumentFacts, Capabilities, Command, EngineSpec, LoraLimits

SLEEP_FLAG = "--enable-sleep-mode"
NO_SLEEP_FLAG = "--no-enable-sleep-mode"
DEV_MODE = "VLLM_SERVER_DEV_MODE"
LORA_FLAG = "--enable-lora"
LORA_UPDATING = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"


def command(spec: EngineSpec) -> Command:
    argv = [spec.python, "-m", "vllm.entrypoints.openai.api_server", "--model", spec.model, *spec.args]
    if option(spec.args, "--host") is None:
        argv += ["--host", spec.host]
    if option(spec.args, "--port") is None:
        argv += ["--port", str(spec.port)]
    env: dict[str, str] = {}
    if spec.sleep_flags:
        env[DEV_MODE] = "1"
        if not has_flag(spec.args, SLEEP_FLAG) and not has_flag(spec.args, NO_SLEEP_FLAG):
            argv.append(SLEEP_FLAG)
    if spec.takes_adapters:
        env[LORA_UPDATING] = "True"
        if not has_flag(spec.args, LORA_FLAG):
            argv.append(LORA_FLAG)
    if spec.api_key:
        env["VLLM_API_KEY"] = spec.api_key  # never in argv, which every user of the machine can read
    return Command(tuple(argv), env)


def facts(model: str, args: Sequence[str]) -> ArgumentFacts:
    names = options(args, "--served-model-name") or (model,)
    return ArgumentFacts(
        host=option(args, "--host"),
        port=option(args, "--port"),
        served_names=names,
        adapters={name: name for name in named_paths(args, "--lora-modules", "name")},
        lora=LoraLimits(number(args, "--max-lora-rank"), number(args, "--max-loras"), number(args, "--max-cpu-loras")),
    )


def capabilities(spec: EngineSpec) -> Capabilities:
    return Capabilities(sleep=True, tells_sleep=True, adapters=True, replaces_adapters=True)


def sleep_obstacle(args: Sequence[str], env: Mapping[str, str], sleep_flags: bool) -> str | None:
    """Why it cannot be put to sleep; None when it can. A vLLM for CPUs takes dev mode without the flag."""
    if env.get(DEV_MODE, "1" if sleep_flags else "0").lower() not in ("1", "true", "yes"):
        return f"vLLM has its sleep endpoints only with {DEV_MODE}=1"
    return None
