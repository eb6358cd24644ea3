"""vLLM's names for the standard metrics. Renamed ones have the newer name first."""

from __future__ import annotations

from runtime.metrics.rules import Rule, Rules

RULES: Rules = {
    "num_requests_running": Rule(("vllm:num_requests_running",)),
    "num_requests_waiting": Rule(("vllm:num_requests_waiting",)),
    "kv_cache_usage_perc": Rule(("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")),
    "prompt_tokens": Rule(("vllm:prompt_tokens",)),
    "generation_tokens": Rule(("vllm:generation_tokens",)),
    "request_success": Rule(("vllm:request_success",)),
    "time_to_first_token_seconds": Rule(("vllm:time_to_first_token_seconds",)),
    # request_time_per_output_token_seconds is another thing: one mean for each request.
    "inter_token_latency_seconds": Rule(("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")),
    "e2e_request_latency_seconds": Rule(("vllm:e2e_request_latency_seconds",)),
    "request_queue_time_seconds": Rule(("vllm:request_queue_time_seconds",)),
    "num_preemptions": Rule(("vllm:num_preemptions",)),
    "prefix_cache_queries": Rule(("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries")),
    "prefix_cache_hits": Rule(("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits")),
    # A series for each set of adapters ever seen, none ever removed; its value is the time it was seen last.
    "lora_requests_info": Rule(("vllm:lora_requests_info",), newest_only=True),
    "generation_throughput": Rule(("vllm:avg_generation_throughput_toks_per_s",)),
    "cache_hit_rate": Rule(("vllm:gpu_prefix_cache_hit_rate",)),
}
