"""/metrics as vLLM 0.32 writes it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from runtime.engines.sim.generation import Generation
from runtime.engines.sim.metrics_page import Load, SimCounters, process_registry
from runtime.engines.sim.options import SimOptions

_TTFT = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
    2560,
)
_ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)

SLEEP_STATES = {None: "awake", 1: "weights_offloaded", 2: "discard_all"}


def _lengths(limit: int) -> tuple[float, ...]:
    """1, 2, 5, 10, ... up to the longest context."""
    steps = [factor * 10**power for power in range(9) for factor in (1, 2, 5)]
    return tuple(float(step) for step in steps if step <= limit) or (1.0,)


class VllmPage:
    content_type = "text/plain; version=1.0.0; charset=utf-8"

    def __init__(self, options: SimOptions, load: Load) -> None:
        self._options = options
        self._load = load
        self._names = ("engine", "model_name")
        self._values = ("0", options.name)
        self._registry = process_registry()
        self._gauges()
        self._counters()
        self._histograms()
        self._lora: Gauge | None = None
        self.sim = SimCounters(self._registry, load)

    def _gauge(self, name: str, text: str, *more: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, (*self._names, *more), registry=self._registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, self._names, registry=self._registry).labels(*self._values)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        family = Histogram(f"vllm:{name}", text, self._names, buckets=buckets, registry=self._registry)
        return family.labels(*self._values)

    def _gauges(self) -> None:
        load, options, values = self._load, self._options, self._values
        running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        running.labels(*values).set_function(lambda: load.running)
        waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        waiting.labels(*values).set_function(lambda: load.waiting)
        reasons = self._gauge("num_requests_waiting_by_reason", "Number of waiting requests by reason.", "reason")
        reasons.labels(*values, "capacity").set_function(lambda: load.waiting)
        reasons.labels(*values, "deferred").set(0)
        usage = self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        usage.labels(*values).set_function(lambda: min(1.0, load.tokens / options.kv_cache_tokens))
        self._sleep_state = self._gauge(
            "engine_sleep_state",
            "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; "
            "weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
            "sleep_state",
        )
        for level, state in SLEEP_STATES.items():
            self._sleep_state.labels(*values, state).set_function(partial(self._in_level, level))
        self._cache_info()

    def _in_level(self, level: int | None) -> float:
        return float(self._load.memory.level == level)

    def _cache_info(self) -> None:
        options = self._options
        labels = {
            "block_size": "16",
            "cache_dtype": "auto",
            "enable_prefix_caching": "True",
            "engine": "0",
            "gpu_memory_utilization": "0.92",
            "kv_cache_size_tokens": str(options.kv_cache_tokens),
            "num_cpu_blocks": "None",
            "num_gpu_blocks": str(options.kv_cache_tokens // 16),
            "sliding_window": "None",
        }
        info = Gauge(
            "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", tuple(labels), registry=self._registry
        )
        info.labels(**labels).set(1)

    def _counters(self) -> None:
        self._prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self._generated = self._counter("generation_tokens", "Number of generation tokens processed.")
        self._counter("num_preemptions", "Cumulative number of preemption from the engine.")
        self._queries = self._counter(
            "prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens."
        )
        self._hits = self._counter("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.")
        success = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            (*self._names, "finished_reason"),
            registry=self._registry,
        )
        reasons = ("stop", "length", "abort", "error", "repetition")
        self._success = {reason: success.labels(*self._values, reason) for reason in reasons}
        rejections = Counter(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            ("model_name", "reason"),
            registry=self._registry,
        )
        self._rejected = rejections.labels(self._options.name, "max_num_queued_reqs")
        rejections.labels(self._options.name, "max_num_queued_tokens")

    def _histograms(self) -> None:
        lengths = _lengths(self._options.max_model_len)
        self._prompt_lengths = self._histogram("request_prompt_tokens", "Number of prefill tokens processed.", lengths)
        self._lengths = self._histogram("request_generation_tokens", "Number of generation tokens processed.", lengths)
        self._ttft = self._histogram(
            "time_to_first_token_seconds", "Histogram of time to first token in seconds.", _TTFT
        )
        self._itl = self._histogram("inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", _ITL)
        self._e2e = self._histogram(
            "e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", _LATENCY
        )
        self._queue_time = self._histogram(
            "request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", _LATENCY
        )

    def started(self, generation: Generation) -> None:
        self._prompt_tokens.inc(generation.order.prompt_tokens)
        self._queries.inc(generation.order.prompt_tokens)
        self._hits.inc(generation.cached_tokens)
        if generation.order.adapter is not None:
            self._note_adapters()

    def _note_adapters(self) -> None:
        """A series for each set of running adapters ever seen; only the newest value is current."""
        if self._lora is None:
            self._lora = Gauge(
                "vllm:lora_requests_info",
                "Running stats on lora requests.",
                ("max_lora", "waiting_lora_adapters", "running_lora_adapters"),
                registry=self._registry,
            )
        names = [
            ",".join(sorted({one.order.adapter for one in group if one.order.adapter is not None}))
            for group in (self._load.scheduler.waiting, self._load.scheduler.running)
        ]
        self._lora.labels(str(self._options.max_loras), *names).set(time.time())

    def said(self, tokens: int) -> None:
        self._generated.inc(tokens)

    def finished(self, generation: Generation, now: float) -> None:
        self._success[generation.finish_reason].inc()
        self._prompt_lengths.observe(generation.order.prompt_tokens)
        self._lengths.observe(generation.sent)
        self._e2e.observe(now - generation.arrived_at)
        if generation.started_at is not None:
            self._queue_time.observe(generation.started_at - generation.arrived_at)
        if generation.first_token_at is not None:
            self._ttft.observe(generation.first_token_at - generation.arrived_at)
        for gap in generation.gaps:
            self._itl.observe(gap)
        if generation.order.adapter is not None:
            self._note_adapters()

    def aborted(self, generation: Generation) -> None:
        self.sim.aborted.inc()
        if generation.order.adapter is not None and self._lora is not None:
            self._note_adapters()

    def rejected(self) -> None:
        self._rejected.inc()

    def cache_cleared(self) -> None:
        """vLLM's counters go on."""

    def render(self) -> bytes:
        return generate_latest(self._registry)
