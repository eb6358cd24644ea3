"""What a simulated engine is told at its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Dialect = Literal["vllm", "sglang"]


@dataclass(frozen=True)
class SimOptions:
    """Times in seconds, memory in GiB, lengths in tokens."""

    model: str = "sim/model"
    served_model_name: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    dialect: Dialect = "vllm"
    # pace
    ttft: float = 0.05
    tokens_per_second: float = 50.0
    max_num_seqs: int = 256
    max_num_queued_reqs: int | None = None
    max_model_len: int = 8192
    kv_cache_tokens: int = 262_144
    # sleep
    enable_sleep_mode: bool = False
    strict_sleep: bool = False
    enable_weights_cpu_backup: bool = False
    sleep_seconds: float = 0.2
    wake_seconds: float = 0.5
    start_seconds: float = 0.0
    memory_gib: float = 8.0
    asleep_memory_gib: float = 1.0
    # adapters
    enable_lora: bool = False
    max_loras: int = 4
    max_lora_rank: int = 16
    lora_modules: tuple[tuple[str, str], ...] = ()
    # the wire
    api_keys: tuple[str, ...] = ()
    abort_lag: float | None = None
    health_seconds: float = 1.0
    health_timeout: float = 20.0
    enable_request_id_headers: bool = False
    enable_force_include_usage: bool = False
    enable_prompt_tokens_details: bool = False
    enable_server_load_tracking: bool = False
    enable_responses_store: bool = False
    seed: int = 0
    faults: Mapping[str, Any] = field(default_factory=dict)
    log_level: str = "info"

    @property
    def served_names(self) -> tuple[str, ...]:
        return self.served_model_name or (self.model,)

    @property
    def name(self) -> str:
        """The name the engine calls itself by, in /v1/models and in metric labels."""
        return self.served_names[0]

    @property
    def seconds_per_token(self) -> float:
        return 1.0 / self.tokens_per_second if self.tokens_per_second > 0 else 0.0

    @property
    def stores_responses(self) -> bool:
        """SGLang always does; vLLM ignores `store` unless told to heed it."""
        return self.dialect == "sglang" or self.enable_responses_store

    @property
    def lag_of_abort(self) -> float:
        """How long a reply that is not streamed goes on after its client has left."""
        if self.abort_lag is not None:
            return self.abort_lag
        return 3.0 if self.dialect == "sglang" else 0.0
