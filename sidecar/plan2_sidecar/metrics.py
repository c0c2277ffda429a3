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

Requests add to plain numbers, which become families when Prometheus asks (`metrics_page`): a
child of prometheus_client takes a lock for each addition, and its histogram walks all buckets.
"""

import asyncio
import importlib
from bisect import bisect_left
from collections import defaultdict
from typing import Final

from plan2_contract.engines import Engine
from plan2_sidecar.cache.levels import Levels
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.sagas.record import State as OperationState
from plan2_sidecar.sagas.request import Mode

PREFIX: Final = "plan2_sidecar"
SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_LOGGED = (Mode.OUTBOX, Mode.SAGA, Mode.ATOMIC)
_PAGE: Final = "plan2_sidecar.metrics_page"


class Counts:
    """A counter whose children are numbers by their labels."""

    def __init__(self, name: str, documentation: str, *labels: str) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = labels
        self.values: defaultdict[tuple[str | int, ...], int] = defaultdict(int)


class Durations:
    """A histogram by one label."""

    def __init__(self, name: str, documentation: str, label: str) -> None:
        self.name = name
        self.documentation = documentation
        self.label = label
        # How many fell into each bucket, the last without an end; and the sum of seconds.
        self.values: defaultdict[str, tuple[list[int], list[float]]] = defaultdict(
            lambda: ([0] * (len(SECONDS) + 1), [0.0])
        )

    def observe(self, label: str, seconds: float) -> None:
        """One more of so many seconds."""
        counts, total = self.values[label]
        counts[bisect_left(SECONDS, seconds)] += 1
        total[0] += seconds


class Metrics:
    """The counters; `render()` is the page."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.watched: list[Levels] = []
        self.requests = Counts(
            "requests", "HTTP requests by route, method and status.", "path", "method", "status"
        )
        self.queries = Counts(
            "queries", "Queries by engine, routing rung and outcome.", "engine", "route", "code"
        )
        self.query_seconds = Durations(
            "query_duration_seconds", "Seconds from a query's arrival to its answer.", "engine"
        )
        self.limits = Counts(
            "rate_limit_checks",
            "Checks of a rate limit by what decided them and how.",
            *("source", "allowed"),
        )
        self.operations = Counts(
            "cross_db_operations",
            "Cross-database operations that ended in this sidecar.",
            *("mode", "state"),
        )
        self.dropped = Counts(
            "analytics_dropped",
            "Requests that services told of and that were given up before ClickHouse had them.",
        )
        # There from the start: to Prometheus, what appears with its first one has not risen.
        self.operations.values.update(((mode, OperationState.DEAD), 0) for mode in _LOGGED)
        self.dropped.values[()] = 0

    def request(self, path: str, method: str, status: int) -> None:
        """One HTTP request was answered; `path` is the route's pattern."""
        self.requests.values[path, method, status] += 1

    def query(self, engine: Engine, route: str, code: str, seconds: float) -> None:
        """One query was answered."""
        self.queries.values[engine, route, code] += 1
        self.query_seconds.observe(engine, seconds)

    def rate_limit(self, source: str, *, allowed: bool) -> None:
        """One check of a limit was decided."""
        self.limits.values[source, "true" if allowed else "false"] += 1

    def analytics_dropped(self, count: int) -> None:
        """So many requests were given up."""
        self.dropped.values[()] += count

    def cross_db_ended(self, mode: Mode, state: OperationState) -> None:
        """A cross-database operation came to its end."""
        self.operations.values[mode, state] += 1

    def watch(self, levels: Levels) -> None:
        """Tell what the caches count."""
        self.watched.append(levels)

    async def prepare(self) -> None:
        """To be awaited before `render`: what it needs is imported off the loop."""
        await asyncio.to_thread(importlib.import_module, _PAGE)

    def render(self) -> bytes:
        """The text format of Prometheus."""
        page: bytes = importlib.import_module(_PAGE).render(self)
        return page
