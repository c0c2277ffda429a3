"""What Prometheus is to warn of: the rules of a PrometheusRule. Pure.

Those on engines read what the kubelet and kube-state-metrics say of the resource's own objects,
since not every engine serves metrics itself. A hibernating engine wants no pod, so that none is
missing. Those on sidecars read the metrics of all sidecars in the namespace, if they are scraped.
"""

from typing import Any

from plan2_contract.engines import Engine
from plan2_operator.model import Platform


def rules(platform: Platform) -> list[dict[str, Any]]:
    """One rule a kind of trouble; empty where there is no engine."""
    return [*_on_engines(platform), *_on_sidecars(platform)]


def _on_engines(platform: Platform) -> list[dict[str, Any]]:
    """Over all deployed engines."""
    engines = "|".join(spec.engine.value for spec in platform.managed())
    if not engines:
        return []
    stateful_set = f"{platform.name}-({engines})"
    sets = _selector(platform, "statefulset", stateful_set)
    pods = _selector(platform, "pod", f"{stateful_set}-0")
    claims = _selector(platform, "persistentvolumeclaim", f"data-{stateful_set}-0")
    return [
        _rule(
            platform,
            "Plan2EngineNotReady",
            f"kube_statefulset_status_replicas_ready{sets} < kube_statefulset_replicas{sets}",
            "10m",
            "critical",
            "{{ $labels.statefulset }} has not been ready for ten minutes.",
        ),
        _rule(
            platform,
            "Plan2EngineRestarts",
            f"increase(kube_pod_container_status_restarts_total{pods}[30m]) > 3",
            "0m",
            "warning",
            "{{ $labels.pod }} was restarted more than three times in half an hour.",
        ),
        _rule(
            platform,
            "Plan2VolumeAlmostFull",
            f"kubelet_volume_stats_available_bytes{claims}"
            f" / kubelet_volume_stats_capacity_bytes{claims} < 0.1",
            "15m",
            "warning",
            "{{ $labels.persistentvolumeclaim }} has less than a tenth of its space left: "
            "raise storage.size.",
        ),
    ]


def _on_sidecars(platform: Platform) -> list[dict[str, Any]]:
    """Over what the enabled engines let sidecars do."""
    enabled = {spec.engine for spec in platform.enabled()}
    made = []
    if Engine.POSTGRESQL in enabled:
        dead = f'{{namespace="{platform.namespace}",state="dead"}}'
        made.append(
            _rule(
                platform,
                "Plan2OperationDead",
                f"increase(plan2_sidecar_cross_db_operations_total{dead}[15m]) > 0",
                "0m",
                "critical",
                "A cross-database operation of {{ $labels.pod }} ended half done: "
                "SELECT * FROM plan2.operation WHERE state = 'dead'.",
            )
        )
    if Engine.CLICKHOUSE in enabled:
        here = f'{{namespace="{platform.namespace}"}}'
        made.append(
            _rule(
                platform,
                "Plan2AnalyticsDropped",
                f"increase(plan2_sidecar_analytics_dropped_total{here}[15m]) > 0",
                "0m",
                "warning",
                "The sidecar of {{ $labels.pod }} gave up requests that it was told of: "
                "ClickHouse has been away for too long, or refuses them.",
            )
        )
    return made


def _selector(platform: Platform, label: str, pattern: str) -> str:
    return f'{{namespace="{platform.namespace}",{label}=~"{pattern}"}}'


def _rule(
    platform: Platform, name: str, expression: str, lasting: str, severity: str, summary: str
) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        "for": lasting,
        "labels": {"severity": severity, "plan2database": platform.name},
        "annotations": {"summary": summary},
    }
