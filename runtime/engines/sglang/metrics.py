"""SGLang's names for the standard metrics. Renamed ones have the newer name first."""

from __future__ import annotations

from runtime.metrics.rules import Rule, Rules

RULES: Rules = {
    "num_requests_running": Rule(("sglang:num_running_reqs",)),
    "num_requests_waiting": Rule(("sglang:num_queue_reqs",)),
    "kv_cache_usage_perc": Rule(("sglang:token_usage",)),
    "prompt_tokens": Rule(("sglang:prompt_tokens",)),
    "generation_tokens": Rule(("sglang:generation_tokens",)),
    "request_success": Rule(("sglang:num_requests",)),
    "time_to_first_token_seconds": Rule(("sglang:time_to_first_token_seconds",)),
    "inter_token_latency_seconds": Rule(("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds")),
    "e2e_request_latency_seconds": Rule(("sglang:e2e_request_latency_seconds",)),
    "request_queue_time_seconds": Rule(("sglang:queue_time_seconds",)),
    # A gauge without _total has the same name; it goes back to 0 and counts nothing.
    "num_preemptions": Rule(("sglang:num_retracted_requests", "sglang:num_retracted_reqs")),
    # Every prompt token is looked up, and those found are counted as cached.
    "prefix_cache_queries": Rule(("sglang:prompt_tokens",)),
    "prefix_cache_hits": Rule(("sglang:cached_tokens",)),
    "lora_slots": Rule(("sglang:lora_pool_slots_total",)),
    "lora_slots_used": Rule(("sglang:lora_pool_slots_used",)),
    "generation_throughput": Rule(("sglang:gen_throughput",)),
    "cache_hit_rate": Rule(("sglang:cache_hit_rate",)),
}
