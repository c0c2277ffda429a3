"""What the sidecar tells Prometheus, in a registry of its own.

    plan2_sidecar_info{version}                        1
    plan2_sidecar_requests_total{path,method,status}   HTTP requests by their route
    plan2_sidecar_queries_total{engine,route,code}     queries; code is ok or a problem's code
    plan2_sidecar_query_duration_seconds{engine}       from the request's arrival to the answer
    plan2_sidecar_engine_up{engine}                    1 up, 0 down; absent while unknown
    plan2_sidecar_breaker_open{engine}                 0 closed, 0.5 half-open, 1 open
    plan2_sidecar_calls_in_flight{engine}              places taken in the bulkhead
    plan2_sidecar_pool_connections{engine,state}       state: size, idle, inUse, max
    plan2_sidecar_rate_limit_checks_total{source,allowed}  checks of a limit by what decided them
    plan2_sidecar_connection_changes_total             connection documents taken over
    plan2_sidecar_cache_requests_total{level,result}   level: l1, dragonflydb, redis;
                                                       result: hit, miss, stale, away
    plan2_sidecar_cache_bytes                          what the caches keep in the process
    plan2_sidecar_analytics_dropped_total              requests told of and never written
    plan2_sidecar_cross_db_operations_total{mode,state}  cross-database operations that ended in
                                                       this sidecar; state: committed, compensated,
                                                       failed, dead

Requests add to plain numbers, which become families when Prometheus asks: a child of
prometheus_client takes a lock for each addition, and its histogram walks all buckets.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from plan2_contract.engines import Engine
from plan2_sidecar.cache.levels import Levels
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.guard.breaker import State as BreakerState
from plan2_sidecar.health import State
from plan2_sidecar.sagas.record import State as OperationState
from plan2_sidecar.sagas.request import Mode

PREFIX = "plan2_sidecar"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LOGGED = (Mode.OUTBOX, Mode.SAGA, Mode.ATOMIC)
_BREAKER = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}


class Metrics:
    """The counters; `render()` is the page."""

    def __init__(self, fleet: Fleet) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated there
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = _Counts(
            "requests", "HTTP requests by route, method and status.", "path", "method", "status"
        )
        self._queries = _Counts(
            "queries", "Queries by engine, routing rung and outcome.", "engine", "route", "code"
        )
        self._query_seconds = _Durations(
            "query_duration_seconds", "Seconds from a query's arrival to its answer.", "engine"
        )
        self._limits = _Counts(
            "rate_limit_checks",
            "Checks of a rate limit by what decided them and how.",
            *("source", "allowed"),
        )
        self._operations = _Counts(
            "cross_db_operations",
            "Cross-database operations that ended in this sidecar.",
            *("mode", "state"),
        )
        # There from the start: to Prometheus, what appears with its first one has not risen.
        self._operations.values.update(((mode, OperationState.DEAD), 0) for mode in _LOGGED)
        counts = (self._requests, self._queries, self._limits, self._operations)
        for family in (*counts, self._query_seconds):
            self._registry.register(family)
        Gauge(
            f"{PREFIX}_info", "The running version.", ["version"], registry=self._registry
        ).labels(version("plan2")).set(1)
        self._registry.register(_FleetCollector(fleet))
        self._dropped = Counter(
            f"{PREFIX}_analytics_dropped",
            "Requests that services told of and that were given up before ClickHouse had them.",
            registry=self._registry,
        )

    def request(self, path: str, method: str, status: int) -> None:
        """One HTTP request was answered; `path` is the route's pattern."""
        self._requests.values[path, method, status] += 1

    def query(self, engine: Engine, route: str, code: str, seconds: float) -> None:
        """One query was answered."""
        self._queries.values[engine, route, code] += 1
        self._query_seconds.observe(engine, seconds)

    def rate_limit(self, source: str, *, allowed: bool) -> None:
        """One check of a limit was decided."""
        self._limits.values[source, "true" if allowed else "false"] += 1

    def analytics_dropped(self, count: int) -> None:
        """So many requests were given up."""
        self._dropped.inc(count)

    def cross_db_ended(self, mode: Mode, state: OperationState) -> None:
        """A cross-database operation came to its end."""
        self._operations.values[mode, state] += 1

    def watch(self, levels: Levels) -> None:
        """Tell what the caches count."""
        self._registry.register(_CacheCollector(levels))

    def render(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self._registry)


class _Counts(Collector):
    """A counter whose children are numbers by their labels."""

    def __init__(self, name: str, documentation: str, *labels: str) -> None:
        self.values: defaultdict[tuple[str | int, ...], int] = defaultdict(int)
        self._about = f"{PREFIX}_{name}", documentation
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(*self._about, labels=self._labels)
        for labels, count in list(self.values.items()):
            family.add_metric([str(label) for label in labels], count)
        yield family


class _Durations(Collector):
    """A histogram by one label."""

    def __init__(self, name: str, documentation: str, label: str) -> None:
        # How many fell into each bucket, the last without an end; and the sum of seconds.
        self._values: defaultdict[str, tuple[list[int], list[float]]] = defaultdict(
            lambda: ([0] * (len(_SECONDS) + 1), [0.0])
        )
        self._about = f"{PREFIX}_{name}", documentation
        self._label = label

    def observe(self, label: str, seconds: float) -> None:
        counts, total = self._values[label]
        counts[bisect_left(_SECONDS, seconds)] += 1
        total[0] += seconds

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(*self._about, labels=(self._label,))
        ends = [*(repr(float(end)) for end in _SECONDS), "+Inf"]
        for label, (counts, total) in list(self._values.items()):
            buckets = list(zip(ends, accumulate(counts), strict=True))
            family.add_metric([str(label)], buckets, total[0])
        yield family


class _FleetCollector(Collector):
    """Reads the fleet when Prometheus asks."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        up = _gauge("engine_up", "Whether the engine answers.", "engine")
        breaker = _gauge("breaker_open", "0 closed, 0.5 half-open, 1 open.", "engine")
        calls = _gauge("calls_in_flight", "Calls to the engine under way.", "engine")
        pool = _gauge("pool_connections", "Connections by state.", "engine", "state")
        for engine, member in self._fleet.members.items():
            if member.health.state is not State.UNKNOWN:
                up.add_metric([engine], float(member.health.state is State.UP))
            breaker.add_metric([engine], _BREAKER[member.guard.breaker.state])
            calls.add_metric([engine], member.guard.bulkhead.in_use)
            for state, count in member.pool().items():
                pool.add_metric([engine, state], count)
        yield from (up, breaker, calls, pool)
        changes = CounterMetricFamily(
            f"{PREFIX}_connection_changes", "Connection documents taken over."
        )
        changes.add_metric([], self._fleet.changes)
        yield changes


class _CacheCollector(Collector):
    """Reads the caches' counters when Prometheus asks."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            f"{PREFIX}_cache_requests",
            "How often a level of the caches was asked.",
            labels=("level", "result"),
        )
        for (level, result), count in list(self._levels.counts.items()):
            requests.add_metric([level, result], count)
        size = _gauge("cache_bytes", "What the caches keep in the process.")
        size.add_metric([], self._levels.l1.bytes)
        yield from (requests, size)


def _gauge(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", documentation, labels=labels)
