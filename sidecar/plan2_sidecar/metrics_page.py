"""The page that Prometheus reads: what `metrics` counted, as families of prometheus_client.

Imported when somebody asks for the page: prometheus_client brings servers and clients of HTTP
along, which nothing here uses, and together they are a thirtieth of an idle sidecar.
"""

from collections.abc import Iterator
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from plan2_sidecar.cache.levels import Levels
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.guard.breaker import State as BreakerState
from plan2_sidecar.health import State
from plan2_sidecar.metrics import PREFIX, SECONDS, Counts, Durations, Metrics

_BREAKER = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}


def render(metrics: Metrics) -> bytes:
    """The text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(metrics))
    return generate_latest(registry)


class _Page(Collector):
    """All families, in the order of the page."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        counts = (metrics.requests, metrics.queries, metrics.limits, metrics.operations)
        yield from map(_counter, counts)
        yield _histogram(metrics.query_seconds)
        info = _gauge("info", "The running version.", "version")
        info.add_metric([version("plan2")], 1)
        yield info
        yield from _fleet(metrics.fleet)
        yield _counter(metrics.dropped)
        for levels in metrics.watched:
            yield from _caches(levels)


def _counter(counts: Counts) -> CounterMetricFamily:
    name = f"{PREFIX}_{counts.name}"
    family = CounterMetricFamily(name, counts.documentation, labels=counts.labels)
    for labels, count in counts.values.items():
        family.add_metric([str(label) for label in labels], count)
    return family


def _histogram(durations: Durations) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        f"{PREFIX}_{durations.name}", durations.documentation, labels=(durations.label,)
    )
    ends = [*(repr(float(end)) for end in SECONDS), "+Inf"]
    for label, (counts, total) in durations.values.items():
        buckets = list(zip(ends, accumulate(counts), strict=True))
        family.add_metric([str(label)], buckets, total[0])
    return family


def _fleet(fleet: Fleet) -> Iterator[Metric]:
    up = _gauge("engine_up", "Whether the engine answers.", "engine")
    breaker = _gauge("breaker_open", "0 closed, 0.5 half-open, 1 open.", "engine")
    calls = _gauge("calls_in_flight", "Calls to the engine under way.", "engine")
    pool = _gauge("pool_connections", "Connections by state.", "engine", "state")
    for engine, member in fleet.members.items():
        if member.health.state is not State.UNKNOWN:
            up.add_metric([engine], float(member.health.state is State.UP))
        breaker.add_metric([engine], _BREAKER[member.guard.breaker.state])
        calls.add_metric([engine], member.guard.bulkhead.in_use)
        for state, count in member.pool().items():
            pool.add_metric([engine, state], count)
    yield from (up, breaker, calls, pool)
    changes = Counts("connection_changes", "Connection documents taken over.")
    changes.values[()] = fleet.changes
    yield _counter(changes)


def _caches(levels: Levels) -> Iterator[Metric]:
    requests = Counts(
        "cache_requests", "How often a level of the caches was asked.", "level", "result"
    )
    requests.values.update({asked: count for asked, count in levels.counts.items()})
    yield _counter(requests)
    size = _gauge("cache_bytes", "What the caches keep in the process.")
    size.add_metric([], levels.l1.bytes)
    yield size


def _gauge(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", documentation, labels=labels)
