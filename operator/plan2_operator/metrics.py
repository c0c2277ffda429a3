"""What the operator says about itself at /metrics."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY: Final = CollectorRegistry()

reconcile_seconds: Final = Histogram(
    "plan2_operator_reconcile_seconds",
    "Seconds a reconcile of one resource took.",
    registry=REGISTRY,
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
reconcile_errors: Final = Counter(
    "plan2_operator_reconcile_errors_total",
    "Reconciles that ended with an error and will be tried again.",
    registry=REGISTRY,
)
engine_errors: Final = Counter(
    "plan2_operator_engine_errors_total",
    "Engines that could not be brought on, by engine and reason.",
    ["engine", "reason"],
    registry=REGISTRY,
)
writes: Final = Counter(
    "plan2_operator_writes_total",
    "Writes to the Kubernetes API, by verb.",
    ["verb"],
    registry=REGISTRY,
)
queue_depth: Final = Gauge(
    "plan2_operator_queue_depth", "Resources that wait for their reconcile.", registry=REGISTRY
)
last_tick: Final = Gauge(
    "plan2_operator_last_tick_timestamp_seconds",
    "When the operator last showed that it is at work, in seconds since 1970.",
    registry=REGISTRY,
)
platforms: Final = Gauge(
    "plan2_operator_platforms", "Resources the operator looks after.", registry=REGISTRY
)
