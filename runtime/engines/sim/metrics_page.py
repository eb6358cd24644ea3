"""What every metrics page has: the sim's own counters, and the seam the dialects' pages share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from runtime.engines.sim.generation import Generation
from runtime.engines.sim.memory import Memory
from runtime.engines.sim.scheduler import Scheduler
from runtime.engines.sim.wire import Connections


@dataclass(frozen=True)
class Load:
    """What a page reads when it is scraped."""

    scheduler: Scheduler
    memory: Memory
    connections: Connections

    @property
    def running(self) -> int:
        return len(self.scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self.scheduler.waiting)

    @property
    def tokens(self) -> int:
        return sum(generation.order.prompt_tokens + generation.sent for generation in self.scheduler.running)


class SimCounters:
    """Counters no real engine has; tests and rehearsals read them."""

    def __init__(self, registry: CollectorRegistry, load: Load) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(f"sim:{name}", text, registry=registry)

        self.requests = counter("requests", "Requests that wanted the model, whatever came of them.")
        self.while_asleep = counter("requests_while_asleep", "Requests that reached the engine while it slept.")
        self.sleep_calls = counter("sleep_calls", "Calls to sleep or to release memory.")
        self.wake_calls = counter("wake_calls", "Calls to wake up or to resume memory.")
        self.aborted = counter("aborted_requests", "Requests whose client left before the end.")
        Gauge("sim:memory_gib", "GPU memory the engine would hold now.", registry=registry).set_function(
            lambda: load.memory.gib
        )
        Gauge("sim:open_connections", "TCP connections open now.", registry=registry).set_function(
            lambda: load.connections.count
        )


class MetricsPage(Protocol):
    sim: SimCounters
    content_type: str

    def started(self, generation: Generation) -> None: ...

    def said(self, tokens: int) -> None: ...

    def finished(self, generation: Generation, now: float) -> None: ...

    def aborted(self, generation: Generation) -> None: ...

    def rejected(self) -> None: ...

    def cache_cleared(self) -> None: ...

    def render(self) -> bytes: ...


def process_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry
