"""The standard metrics: what every engine's numbers are called, whichever engine they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Standard:
    """``name`` without a prefix, and a counter's without its ``_total``. ``kind``: counter, gauge or histogram."""

    name: str
    kind: str
    summary: str

    @property
    def shown(self) -> str:
        """As its samples, or a histogram's family, are called."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


STANDARDS: Mapping[str, Standard] = MappingProxyType(
    {
        one.name: one
        for one in (
            Standard("num_requests_running", "gauge", "Requests that are being computed."),
            Standard("num_requests_waiting", "gauge", "Requests that wait in the engine's queue."),
            Standard("kv_cache_usage_perc", "gauge", "Share of the KV cache in use; 1 is all of it."),
            Standard("prompt_tokens", "counter", "Prompt tokens processed."),
            Standard("generation_tokens", "counter", "Tokens generated."),
            Standard("request_success", "counter", "Requests that ended well."),
            Standard("time_to_first_token_seconds", "histogram", "From a request's arrival to its first token."),
            Standard("inter_token_latency_seconds", "histogram", "From one token of a request to the next."),
            Standard("e2e_request_latency_seconds", "histogram", "From a request's arrival to its end."),
            Standard("request_queue_time_seconds", "histogram", "What a request waited in the engine's queue."),
            Standard("num_preemptions", "counter", "Requests put back for want of KV cache."),
            Standard("prefix_cache_queries", "counter", "Prompt tokens looked up in the prefix cache."),
            Standard("prefix_cache_hits", "counter", "Prompt tokens found in the prefix cache."),
            Standard("lora_requests_info", "gauge", "Adapters in use now, in labels; the value is a time."),
            Standard("lora_slots", "gauge", "Adapters that GPU memory has room for."),
            Standard("lora_slots_used", "gauge", "Adapters in GPU memory."),
            Standard("generation_throughput", "gauge", "Tokens generated in a second, by the engine's own count."),
            Standard("cache_hit_rate", "gauge", "Share of prompt tokens found in the prefix cache lately."),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What to write before each name, and further names that dashboards made for another runtime look for."""

    prefix: str
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def names(self, standard: Standard) -> tuple[str, ...]:
        """All names of one standard, without a counter's ``_total``."""
        return tuple(self.prefix + name for name in (standard.name, *self.also.get(standard.name, ())))


VOCABULARIES: Mapping[str, Vocabulary] = MappingProxyType(
    {
        "torpor": Vocabulary("torpor:"),
        "kthena": Vocabulary("kthena:", {"inter_token_latency_seconds": ("time_per_output_token_seconds",)}),
        "aibrix": Vocabulary(
            "aibrix:",
            {
                "num_requests_waiting": ("queue_size",),
                "kv_cache_usage_perc": ("gpu_cache_usage_perc", "token_usage"),
                "inter_token_latency_seconds": ("time_per_output_token_seconds",),
            },
        ),
    }
)
