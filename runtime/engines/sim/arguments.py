"""The command line: pure, from words and environment to options."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.engines.sim.faults import KINDS
from runtime.engines.sim.options import SimOptions

_DESCRIPTION = """\
A simulated engine: speaks the API of vLLM (or SGLang with --dialect sglang), sleeps, wakes, loads adapters and
reports metrics like it, and needs no GPU. Flags of the real engines it does not know are accepted and ignored, so
that a configuration can be rehearsed with its arguments as they are."""

_EPILOG = (
    "environment:\n"
    "  SIM_API_KEY                        the key, when --api-key is not given (a command line can be seen by all)\n"
    "  VLLM_SERVER_DEV_MODE=1             mounts the sleep routes (vLLM), as --enable-sleep-mode does;\n"
    "                                     a real vLLM needs both\n"
    "  VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 mounts the adapter routes (vLLM), as --enable-lora does\n"
    "  VLLM_ENABLE_RESPONSES_API_STORE=1  keeps responses (vLLM), as --enable-responses-store does\n\n"
    "faults, for --fault and POST /sim/faults (GET shows them, DELETE clears them); each also takes `times`,\n"
    "the number of requests it hits, and true or a number stands for the whole object:\n"
    + "\n".join(f"  {name:<21}{kind.summary} ({', '.join(sorted(kind.fields))})" for name, kind in KINDS.items())
)


def _length(text: str) -> int:
    """8192, 8k (8000) or 8K (8192)."""
    factor = {"k": 1000, "K": 1024, "m": 1_000_000, "M": 1 << 20}.get(text[-1:], 1)
    return int(float(text[:-1]) * factor) if factor > 1 else int(text)


def _fault(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


def _lora(text: str) -> tuple[str, str]:
    if text.startswith("{"):
        value = json.loads(text)
        return str(value["name"]), str(value["path"])
    name, _, path = text.partition("=")
    return name, path or name


def _add_identity(parser: argparse.ArgumentParser, defaults: SimOptions) -> None:
    group = parser.add_argument_group("who it is")
    add = group.add_argument
    add("--model", "--model-path", default=defaults.model, help="the model's name or path")
    add("--served-model-name", nargs="+", default=(), metavar="NAME", help="names clients use (default: the model)")
    add("--dialect", choices=("vllm", "sglang"), default="vllm", help="whose API to speak (default: vllm)")
    add("--host", default=defaults.host, help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=defaults.port, help="port to listen on (default: %(default)s)")
    add("--api-key", nargs="*", default=[], metavar="KEY", help="keys to ask for; better given in SIM_API_KEY")
    add("--seed", type=int, default=0, help="another seed says other text (default: 0)")
    add("--log-level", default="info", help="debug, info, warning or error (default: %(default)s)")
    add("--enable-request-id-headers", action="store_true", help="send X-Request-Id back")
    add("--enable-force-include-usage", action="store_true", help="usage in every chunk, asked for or not")
    add("--enable-prompt-tokens-details", action="store_true", help="tell the cached tokens in usage")
    add("--enable-responses-store", action="store_true", help="vllm: keep responses; its own way is the environment")
    add("--enable-server-load-tracking", action="store_true", help="count requests in /load, which else says 0")


def _add_pace(parser: argparse.ArgumentParser, defaults: SimOptions) -> None:
    group = parser.add_argument_group("how fast it is")
    add = group.add_argument
    add("--ttft", type=float, default=defaults.ttft, metavar="SECONDS", help="to the first token (%(default)s)")
    add(
        "--tokens-per-second",
        type=float,
        default=defaults.tokens_per_second,
        metavar="N",
        help="of one stream; 0 is as fast as possible (%(default)s)",
    )
    add(
        "--max-num-seqs",
        "--max-running-requests",
        type=int,
        default=defaults.max_num_seqs,
        metavar="N",
        help="requests that run at once; more wait in a queue (%(default)s)",
    )
    add("--max-num-queued-reqs", type=int, metavar="N", help="running and waiting before 503 (no limit)")
    add(
        "--max-model-len",
        "--context-length",
        type=_length,
        default=defaults.max_model_len,
        metavar="TOKENS",
        help="prompt and reply together; 8k and 8K are understood (%(default)s)",
    )
    add(
        "--kv-cache-tokens",
        "--max-total-tokens",
        type=_length,
        default=defaults.kv_cache_tokens,
        metavar="TOKENS",
        help="what the KV cache holds, for its metrics and the prefix cache (%(default)s)",
    )
    add(
        "--start-seconds",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="before the port opens, like the loading of a model (0)",
    )
    add(
        "--abort-lag", type=float, metavar="SECONDS", help="a reply not streamed outlives its client (sglang 3, vllm 0)"
    )
    add("--health-seconds", type=float, default=1.0, metavar="SECONDS", help="sglang: a /health takes (%(default)s)")
    add("--health-timeout", type=float, default=20.0, metavar="SECONDS", help="sglang: /health gives up (%(default)s)")


def _add_sleep(parser: argparse.ArgumentParser, defaults: SimOptions) -> None:
    group = parser.add_argument_group("sleep")
    add = group.add_argument
    add("--enable-sleep-mode", action="store_true", help="vllm: mount /sleep, /wake_up and the rest")
    add("--enable-weights-cpu-backup", action="store_true", help="sglang: weights survive a release")
    add("--strict-sleep", action="store_true", help="a request that reaches it asleep ends the process")
    for name, text in (("sleep", "falling asleep takes"), ("wake", "waking takes")):
        default = getattr(defaults, f"{name}_seconds")
        add(f"--{name}-seconds", type=float, default=default, metavar="SECONDS", help=f"{text} (%(default)s)")
    add("--memory-gib", type=float, default=defaults.memory_gib, metavar="GIB", help="awake (%(default)s)")
    add(
        "--asleep-memory-gib",
        type=float,
        default=defaults.asleep_memory_gib,
        metavar="GIB",
        help="asleep (%(default)s)",
    )


def _add_adapters(parser: argparse.ArgumentParser, defaults: SimOptions) -> None:
    group = parser.add_argument_group("adapters")
    add = group.add_argument
    add("--enable-lora", action="store_true", help="take LoRA adapters at run time")
    add(
        "--lora-modules",
        "--lora-paths",
        nargs="+",
        type=_lora,
        default=(),
        metavar="NAME=PATH",
        help="adapters loaded from the start",
    )
    add("--max-loras", "--max-loras-per-batch", type=int, default=defaults.max_loras, metavar="N", help="(%(default)s)")
    add("--max-lora-rank", type=int, default=defaults.max_lora_rank, metavar="N", help="above it is 500 (%(default)s)")


def parser() -> argparse.ArgumentParser:
    defaults = SimOptions()
    made = argparse.ArgumentParser(
        prog="python -m runtime.engines.sim",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_identity(made, defaults)
    _add_pace(made, defaults)
    _add_sleep(made, defaults)
    _add_adapters(made, defaults)
    made.add_argument(
        "--fault", type=_fault, action="append", default=[], metavar="JSON", help="""e.g. '{"hang": {"times": 1}}'"""
    )
    return made


def _truthy(value: str | None) -> bool:
    return (value or "").strip().lower() in ("1", "true", "yes", "on")


def _dashed(word: str) -> str:
    """--max_model_len is --max-model-len, as the real engines have it."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def parse(words: Sequence[str], environ: Mapping[str, str]) -> tuple[SimOptions, list[str]]:
    """The options, and the words nobody here knows."""
    given, ignored = parser().parse_known_args([_dashed(word) for word in words])
    values = vars(given)
    faults: dict[str, Any] = {}
    for fault in values.pop("fault"):
        faults |= fault
    keys = values.pop("api_key") or ([environ["SIM_API_KEY"]] if environ.get("SIM_API_KEY") else [])
    values["served_model_name"] = tuple(values["served_model_name"])
    values["lora_modules"] = tuple(values["lora_modules"])
    values["enable_sleep_mode"] = values["enable_sleep_mode"] or _truthy(environ.get("VLLM_SERVER_DEV_MODE"))
    values["enable_lora"] = values["enable_lora"] or _truthy(environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING"))
    stores = _truthy(environ.get("VLLM_ENABLE_RESPONSES_API_STORE"))
    values["enable_responses_store"] = values["enable_responses_store"] or stores
    return SimOptions(**values, api_keys=tuple(keys), faults=faults), ignored
