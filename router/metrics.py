"""The gateway's own Prometheus metrics, read from what is counted anyway when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from controller.fleet.circuit import Circuit
from controller.fleet.fleet import Fleet
from controller.fleet.state import State
from router.proxy.buffered import Buffered
from router.proxy.queue import Queue
from router.traffic.histogram import Histogram, buckets
from router.traffic.monitor import ModelTraffic, TrafficMonitor

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class GatewayMetrics(Collector):
    """Collects from traffic and fleet; labels are names from the YAML only."""

    def __init__(
        self,
        fleet: Fleet,
        traffic: TrafficMonitor,
        queues: Mapping[str, Queue],
        buffered: Buffered,
        clients: Callable[[], int],
        more: Collector,
    ) -> None:
        self._fleet = fleet
        self._traffic = traffic
        self._queues = queues
        self._buffered = buffered
        self._clients = clients
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._registry.register(more)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def page(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        models = list(self._traffic.models.values())
        yield from self._requests(models)
        yield from self._durations(models)
        yield from self._instances()
        yield from self._waiting()
        yield GaugeMetricFamily("torpor_buffered_request_bytes", "Of requests not yet answered.", self._buffered.held)
        yield GaugeMetricFamily("torpor_client_connections", "In use and idle.", self._clients())

    def _requests(self, models: list[ModelTraffic]) -> Iterable[Metric]:
        requests = CounterMetricFamily("torpor_requests", "Requests that ended.", labels=["model", "outcome"])
        statuses = CounterMetricFamily("torpor_responses", "Responses by status class.", labels=["model", "status"])
        tokens = CounterMetricFamily("torpor_tokens", "Tokens as engines report them.", labels=["model", "kind"])
        in_flight = GaugeMetricFamily("torpor_requests_in_flight", "From arrival to the last byte.", labels=["model"])
        waiting = GaugeMetricFamily("torpor_requests_waiting", "Waiting for an instance.", labels=["model"])
        for traffic in models:
            for outcome, count in traffic.outcomes.items():
                requests.add_metric([traffic.model, outcome], count)
            for status, count in traffic.statuses.items():
                statuses.add_metric([traffic.model, status], count)
            tokens.add_metric([traffic.model, "prompt"], traffic.prompt_tokens)
            tokens.add_metric([traffic.model, "completion"], traffic.completion_tokens)
            in_flight.add_metric([traffic.model], traffic.in_flight)
            waiting.add_metric([traffic.model], traffic.waiting)
        yield from (requests, statuses, tokens, in_flight, waiting)

    def _durations(self, models: list[ModelTraffic]) -> Iterable[Metric]:
        kinds: dict[str, tuple[str, Callable[[ModelTraffic], Histogram]]] = {
            "torpor_request_duration_seconds": ("From arrival to the last byte.", lambda one: one.latency),
            "torpor_time_to_first_token_seconds": ("Of streams, from arrival.", lambda one: one.ttft),
            "torpor_wait_seconds": ("Waiting for an instance to be ready.", lambda one: one.wait),
        }
        for name, (summary, of) in kinds.items():
            family = HistogramMetricFamily(name, summary, labels=["model"])
            for traffic in models:
                histogram = of(traffic)
                family.add_metric([traffic.model], buckets(histogram), histogram.sum)
            yield family

    def _instances(self) -> Iterable[Metric]:
        labels = ["model", "instance"]
        states = GaugeMetricFamily("torpor_instance_state", "1 for the state it is in.", labels=[*labels, "state"])
        in_flight = GaugeMetricFamily("torpor_instance_in_flight", "Requests on this instance.", labels=labels)
        circuits = GaugeMetricFamily("torpor_instance_circuit", "1 for what it is.", labels=[*labels, "circuit"])
        sleeps = CounterMetricFamily("torpor_sleeps", "Times it fell asleep.", labels=[*labels, "cause"])
        wakes = CounterMetricFamily("torpor_wakes", "Times it was to be woken.", labels=[*labels, "result"])
        for instance in self._fleet.instances.values():
            names = [instance.config.model, instance.name]
            for state in State:
                states.add_metric([*names, state], float(instance.state is state))
            in_flight.add_metric(names, instance.in_flight)
            for circuit in Circuit:
                circuits.add_metric([*names, circuit], float(instance.breaker.circuit is circuit))
            for cause, count in instance.sleeps.items():
                sleeps.add_metric([*names, cause], count)
            for result, count in instance.wakes.items():
                wakes.add_metric([*names, result], count)
        yield from (states, in_flight, circuits, sleeps, wakes)

    def _waiting(self) -> Iterable[Metric]:
        """Of models with ``max_in_flight``."""
        in_flight = GaugeMetricFamily("torpor_queue_in_flight", "Requests that have a place.", labels=["model"])
        waiting = GaugeMetricFamily("torpor_queue_waiting", "Requests that wait for one.", labels=["model"])
        refused = CounterMetricFamily("torpor_queue_refusals", "Requests turned away.", labels=["model", "code"])
        for model, queue in self._queues.items():
            in_flight.add_metric([model], queue.in_flight)
            waiting.add_metric([model], len(queue.waiters))
            for code, count in queue.refusals.items():
                refused.add_metric([model, code], count)
        yield from (in_flight, waiting, refused)
