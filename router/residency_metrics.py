"""Metrics of who is awake: how long wakes take, why they happened, what had to leave, who holds which memory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.fleet.fleet import Fleet
from controller.fleet.instance import A_REQUEST_CAME, EVICTED, NOT_NEEDED
from controller.fleet.journal import Event, Happened
from controller.fleet.transitions import IT_WAS_BUSY
from controller.residency.arbiter import Arbiter
from router.traffic.histogram import Histogram, buckets
from router.traffic.monitor import TrafficMonitor

OWN_REASONS = (A_REQUEST_CAME, NOT_NEEDED, IT_WAS_BUSY)


class ResidencyMetrics(Collector):
    """Listens to the journal. Labels are names from the YAML, and causes and reasons of our own."""

    def __init__(self, fleet: Fleet, arbiter: Arbiter, traffic: TrafficMonitor) -> None:
        self._fleet = fleet
        self._arbiter = arbiter
        self._traffic = traffic
        self._wakes: defaultdict[tuple[str, str, str], Histogram] = defaultdict(Histogram)
        self._aborted: Counter[tuple[str, str]] = Counter()
        self._evicted: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        fleet.journal.listeners.append(self._heard)

    def collect(self) -> Iterable[Metric]:
        yield from self._wakes_and_waits()
        yield from self._counts()
        yield from self._times()
        yield from self._memory()

    def _heard(self, event: Event) -> None:
        if event.what is Happened.WOKEN and event.seconds is not None:
            self._wakes[event.model, str(event.level or 0), event.cause].add(event.seconds)
        elif event.what is Happened.SLEEP_CALLED_OFF:
            self._aborted[event.model, event.detail if event.detail in OWN_REASONS else "error"] += 1
        elif event.what is Happened.SLEPT and event.cause == EVICTED:
            self._evicted[event.model] += 1
        elif event.what is Happened.REFUSED:
            self._refused[event.model] += 1

    def _wakes_and_waits(self) -> Iterable[Metric]:
        durations = HistogramMetricFamily(
            "torpor_wake_duration_seconds",
            "From the order to ready; level 0 is a start.",
            labels=["model", "level", "cause"],
        )
        for labels, histogram in self._wakes.items():
            durations.add_metric(list(labels), buckets(histogram), histogram.sum)
        waits = HistogramMetricFamily(
            "torpor_wake_wait_seconds", "What requests waited for a wake, or for room.", labels=["model"]
        )
        served = CounterMetricFamily(
            "torpor_requests_served_by_wake", "Requests that waited and got one.", labels=["model"]
        )
        for name, traffic in self._traffic.models.items():
            waits.add_metric([name], buckets(traffic.wake_wait), traffic.wake_wait.sum)
            served.add_metric([name], traffic.served_by_wake)
        yield from (durations, waits, served)

    def _counts(self) -> Iterable[Metric]:
        aborted = CounterMetricFamily("torpor_sleep_aborted", "Sleeps that did not happen.", labels=["model", "reason"])
        evictions = CounterMetricFamily("torpor_evictions", "Sleeps that made room for another.", labels=["model"])
        refusals = CounterMetricFamily("torpor_no_room", "Models found never to fit.", labels=["model"])
        for (model, reason), count in self._aborted.items():
            aborted.add_metric([model, reason], count)
        for model, count in self._evicted.items():
            evictions.add_metric([model], count)
        for model, count in self._refused.items():
            refusals.add_metric([model], count)
        yield from (aborted, evictions, refusals)

    def _times(self) -> Iterable[Metric]:
        seconds = CounterMetricFamily(
            "torpor_instance_seconds", "Time in each state.", labels=["model", "instance", "state"]
        )
        for one in self._fleet.instances.values():
            for state, spent in one.time_in_states().items():
                seconds.add_metric([one.config.model, one.name, state], spent)
        yield seconds

    def _memory(self) -> Iterable[Metric]:
        labels = ["place", "model", "instance", "state"]
        held = GaugeMetricFamily("torpor_memory_held_bytes", "Of each place, by who holds it.", labels=labels)
        capacity = GaugeMetricFamily("torpor_memory_capacity_bytes", "Of each place.", labels=["place"])
        books, holders = self._arbiter.books(), self._arbiter.holders
        for name, amounts in books.held.items():
            one = holders[name]
            for place, size in amounts.items():
                held.add_metric([place, one.config.model, name, one.engine_state], size)
        for place, size in books.capacity.items():
            capacity.add_metric([place], size)
        yield from (held, capacity)
