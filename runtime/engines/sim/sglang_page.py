"""/metrics as SGLang 0.5.23 writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from runtime.engines.sim.generation import Generation
from runtime.engines.sim.metrics_page import Load, SimCounters, process_registry
from runtime.engines.sim.options import SimOptions

_TTFT = (0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400)
_ITL = (0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08)
_ITL_LONG = (0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8)
_QUEUE = (0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100)
_QUEUE_LONG = (200, 300, 400, 500, 600, 700, 800, 900, 1000, 1200, 1400, 1600, 1800, 2000, 2500, 3000)


class SglangPage:
    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, options: SimOptions, load: Load) -> None:
        self._options = options
        self._load = load
        self._registry = process_registry()
        self._queried = 0
        self._cached = 0
        self._counters()
        self._gauges()
        self._histograms()
        self.sim = SimCounters(self._registry, load)

    def _gauges(self) -> None:
        load, options = self._load, self._options
        labels = {
            "engine_type": "unified",
            "model_name": options.name,
            "moe_ep_rank": "0",
            "pp_rank": "0",
            "tp_rank": "0",
        }
        self._ranked = labels
        readings: list[tuple[str, str, Callable[[], float]]] = [
            ("num_running_reqs", "The number of running requests.", lambda: load.running),
            ("num_queue_reqs", "The number of requests in the waiting queue.", lambda: load.waiting),
            ("token_usage", "The token usage.", lambda: load.tokens / options.kv_cache_tokens),
            ("num_used_tokens", "The number of used tokens.", lambda: load.tokens),
            ("cache_hit_rate", "The prefix cache hit rate.", lambda: self._cached / max(1, self._queried)),
            ("gen_throughput", "The generation throughput (token/s).", self._throughput),
            (
                "max_total_num_tokens",
                "Maximum total number of tokens in the KV cache pool.",
                lambda: options.kv_cache_tokens,
            ),
            ("context_len", "Maximum context length.", lambda: options.max_model_len),
        ]
        for name, text, read in readings:
            gauge = Gauge(f"sglang:{name}", text, tuple(labels), registry=self._registry)
            gauge.labels(**labels).set_function(read)

    def _throughput(self) -> float:
        return self._load.running * self._options.tokens_per_second

    def _counters(self) -> None:
        names = ("engine_type", "is_streaming", "model_name")

        def counter(name: str, text: str) -> dict[bool, Counter]:
            family = Counter(f"sglang:{name}", text, names, registry=self._registry)
            return {
                streaming: family.labels("unified", str(streaming).lower(), self._options.name)
                for streaming in (False, True)
            }

        self._prompt_tokens = counter("prompt_tokens", "Number of prefill tokens processed.")
        self._generated = counter("generation_tokens", "Number of generation tokens processed.")
        self._requests = counter("num_requests", "Number of requests processed.")
        cached = Counter(
            "sglang:cached_tokens",
            "Number of cached prompt tokens.",
            ("cache_source", "engine_type", "model_name"),
            registry=self._registry,
        )
        self._cached_tokens = cached.labels("device", "unified", self._options.name)

    def _histograms(self) -> None:
        by_stream = ("engine_type", "is_streaming", "model_name")
        by_model = ("engine_type", "model_name")

        def family(name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> Histogram:
            return Histogram(f"sglang:{name}", text, labels, buckets=buckets, registry=self._registry)

        self._ttft = family("time_to_first_token_seconds", "Histogram of time to first token.", by_stream, _TTFT)
        self._e2e = family(
            "e2e_request_latency_seconds",
            "Histogram of End-to-end request latency in seconds",
            by_stream,
            (*_TTFT, 600, 1200, 1800, 2400),
        )
        self._itl = family(
            "inter_token_latency_seconds",
            "Histogram of inter-token latency in seconds.",
            by_model,
            (*_ITL, *_ITL_LONG),
        ).labels("unified", self._options.name)
        self._queue_time = family(
            "queue_time_seconds",
            "Histogram of queueing time in seconds.",
            tuple(self._ranked),
            (*_QUEUE, *_QUEUE_LONG),
        ).labels(**self._ranked)

    def started(self, generation: Generation) -> None:
        self._queried += generation.order.prompt_tokens
        self._cached += generation.cached_tokens

    def said(self, tokens: int) -> None:
        """SGLang counts at the end of a request."""

    def finished(self, generation: Generation, now: float) -> None:
        streaming = generation.order.stream
        labels = ("unified", str(streaming).lower(), self._options.name)
        self._requests[streaming].inc()
        self._prompt_tokens[streaming].inc(generation.order.prompt_tokens)
        self._cached_tokens.inc(generation.cached_tokens)
        self._generated[streaming].inc(generation.sent)
        self._e2e.labels(*labels).observe(now - generation.arrived_at)
        if generation.started_at is not None:
            self._queue_time.observe(generation.started_at - generation.arrived_at)
        if generation.first_token_at is not None:
            self._ttft.labels(*labels).observe(generation.first_token_at - generation.arrived_at)
        for gap in generation.gaps:
            self._itl.observe(gap)

    def aborted(self, generation: Generation) -> None:
        self.sim.aborted.inc()

    def rejected(self) -> None:
        """SGLang has no such counter."""

    def cache_cleared(self) -> None:
        self._queried = self._cached = 0

    def render(self) -> bytes:
        return generate_latest(self._registry)
