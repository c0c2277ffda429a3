"""All that a resource should have in the cluster, and the document its sidecars read. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from plan2_contract import connection
from plan2_contract.connection import Document, Engines
from plan2_contract.engines import Engine
from plan2_operator import alerts, manifests
from plan2_operator.engines import MODULES
from plan2_operator.model import EngineSpec, Manifest, Platform

# What the superuser, the operator's own and the exporters' connections need of PostgreSQL.
RESERVED_CONNECTIONS: Final = 15
SMALLEST_POOL: Final = 2


def objects(platform: Platform) -> dict[Engine, list[Manifest]]:
    """Everything but Secrets, engine by engine; raises InvalidSpec."""
    return {
        spec.engine: MODULES[spec.engine].objects(platform, spec) for spec in platform.managed()
    }


def shared_objects(platform: Platform) -> list[Manifest]:
    """What belongs to no single engine: the ServiceMonitor and the alerts, if asked for."""
    made: list[Manifest] = []
    if platform.monitoring.service_monitor:
        made.append(manifests.service_monitor(platform))
    rules = alerts.rules(platform) if platform.monitoring.prometheus_rule else []
    if rules:
        made.append(manifests.prometheus_rule(platform, rules))
    return made


def document(
    platform: Platform, admin: Mapping[Engine, Mapping[str, str]], sidecars: int
) -> Document:
    """What a sidecar needs to reach the enabled engines that `admin` has the Secret of."""
    members: dict[str, Any] = {
        spec.engine.value: MODULES[spec.engine].connection(
            platform, spec, admin[spec.engine], pool_max(spec, sidecars)
        )
        for spec in platform.enabled()
        if spec.engine in admin
    }
    return Document(
        version=connection.VERSION,
        engines=Engines(**members),
        sidecars=max(1, sidecars),
        required_engines=platform.sidecar.required_engines,
    )


def pool_max(spec: EngineSpec, sidecars: int) -> int:
    """One sidecar's share of the engine's connections, never more than the spec says."""
    share = _share(spec, sidecars)
    return spec.pool_max if share is None else max(SMALLEST_POOL, min(spec.pool_max, share))


def low_budgets(platform: Platform, sidecars: int) -> list[Engine]:
    """The engines whose connections do not suffice for the smallest pool in each sidecar."""
    shares = {spec.engine: _share(spec, sidecars) for spec in platform.managed()}
    return [
        engine for engine, share in shares.items() if share is not None and share < SMALLEST_POOL
    ]


def _share(spec: EngineSpec, sidecars: int) -> int | None:
    connections = MODULES[spec.engine].max_connections(spec)
    if connections is None:
        return None
    return (connections - RESERVED_CONNECTIONS) // max(1, sidecars)
