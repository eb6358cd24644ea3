"""How the simulated engine is started: with our own interpreter, and able to sleep."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from runtime.engines.arguments import has_flag, option
from runtime.engines.sglang import command as sglang
from runtime.engines.spec import ArgumentFacts, Capabilities, Command, EngineSpec
from runtime.engines.vllm import command as vllm


def command(spec: EngineSpec) -> Command:
    argv = [sys.executable, "-P", "-m", "runtime.engines.sim", "--model", spec.model, *spec.args]
    if option(spec.args, "--host") is None:
        argv += ["--host", spec.host]
    if option(spec.args, "--port") is None:
        argv += ["--port", str(spec.port)]
    env = {vllm.DEV_MODE: "1"} if spec.sleep_flags else {}
    if spec.takes_adapters and not has_flag(spec.args, vllm.LORA_FLAG):
        argv.append(vllm.LORA_FLAG)
    if spec.api_key:
        env["SIM_API_KEY"] = spec.api_key
    return Command(tuple(argv), env)


def facts(model: str, args: Sequence[str]) -> ArgumentFacts:
    return sglang.facts(model, args) if is_sglang(args) else vllm.facts(model, args)


def capabilities(spec: EngineSpec) -> Capabilities:
    return sglang.capabilities(spec) if is_sglang(spec.words) else vllm.capabilities(spec)


def sleep_obstacle(args: Sequence[str], env: Mapping[str, str], sleep_flags: bool) -> str | None:
    """In SGLang's dialect it can always sleep; in vLLM's it has the endpoints with the flag or in dev mode."""
    if is_sglang(args) or has_flag(args, vllm.SLEEP_FLAG):
        return None
    return vllm.sleep_obstacle(args, env, sleep_flags)


def is_sglang(args: Sequence[str]) -> bool:
    return option(args, "--dialect") == "sglang"
