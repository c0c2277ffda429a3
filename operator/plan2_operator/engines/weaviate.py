"""Weaviate: configured by its environment alone, with one key for us and one for the apps."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from plan2_contract import names
from plan2_contract.connection import Weaviate
from plan2_contract.engines import PORTS, WEAVIATE_GRPC_PORT, Engine
from plan2_operator import manifests
from plan2_operator.engines import access, configuration
from plan2_operator.manifests import METRICS, Pod, Port, http_probe, variable
from plan2_operator.model import EngineSpec, Manifest, Platform

PORT: Final = PORTS[Engine.WEAVIATE]
METRICS_PORT: Final = 2112
DATA: Final = "/var/lib/weaviate"
API_KEY: Final = "api-key"
APP_API_KEY: Final = "app-api-key"
USERS: Final = "plan2-admin,plan2-app"
OWNED: Final = (
    "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED",
    "AUTHENTICATION_APIKEY_ALLOWED_KEYS",
    "AUTHENTICATION_APIKEY_ENABLED",
    "AUTHENTICATION_APIKEY_USERS",
    "CLUSTER_ADVERTISE_ADDR",
    "CLUSTER_HOSTNAME",
    "PERSISTENCE_DATA_PATH",
    "PLAN2_ADMIN_API_KEY",
    "PLAN2_APP_API_KEY",
    "RAFT_BOOTSTRAP_EXPECT",
    "RAFT_JOIN",
)


def objects(platform: Platform, spec: EngineSpec) -> list[Manifest]:
    """Everything but Secrets; raises InvalidSpec."""
    return manifests.workload(platform, spec, _pod(spec))


def admin_secret(
    platform: Platform, spec: EngineSpec, previous: Mapping[str, str], generate: Callable[[], str]
) -> dict[str, str]:
    """Two keys; Weaviate knows no passwords."""
    made = dict(previous)
    for key in (API_KEY, APP_API_KEY):
        made[key] = previous.get(key) or generate()
    return made


def app_secret(platform: Platform, spec: EngineSpec, admin: Mapping[str, str]) -> dict[str, str]:
    return access.binding(spec.engine, connection(platform, spec, admin, spec.pool_max))


def connection(
    platform: Platform, spec: EngineSpec, admin: Mapping[str, str], pool_max: int
) -> Weaviate:
    external = spec.external
    if external is not None:
        return Weaviate(
            host=external.host,
            port=external.port,
            scheme="https" if external.tls else "http",
            grpc_port=external.grpc_port,
            api_key=admin.get(API_KEY) or None,
            ca_pem=admin.get(access.CA) or None,
            pool_max=pool_max,
        )
    return Weaviate(
        host=access.service_host(spec),
        port=spec.port,
        grpc_port=WEAVIATE_GRPC_PORT,
        api_key=admin[APP_API_KEY],
        pool_max=pool_max,
    )


def max_connections(spec: EngineSpec) -> int | None:
    return None


def _pod(spec: EngineSpec) -> Pod:
    ready = "/v1/.well-known/ready"
    live = "/v1/.well-known/live"
    return Pod(
        ports=(
            Port(name="http", number=PORT),
            Port(name="grpc", number=WEAVIATE_GRPC_PORT),
            Port(name=METRICS, number=METRICS_PORT),
        ),
        data_path=DATA,
        args=("--host", "0.0.0.0", "--port", str(PORT), "--scheme", "http"),
        env=_environment(spec),
        startup=http_probe(ready, PORT, periodSeconds=5, timeoutSeconds=3, failureThreshold=600),
        readiness=http_probe(ready, PORT, periodSeconds=10, timeoutSeconds=3, failureThreshold=3),
        liveness=http_probe(live, PORT, periodSeconds=10, timeoutSeconds=3, failureThreshold=30),
        grace_seconds=600,
        mount_admin=False,
    )


def _environment(spec: EngineSpec) -> list[Mapping[str, Any]]:
    host = f"{names.engine_object(spec.cr, spec.engine)}-0"
    ours = {
        "AUTOSCHEMA_ENABLED": "true",
        "DEFAULT_VECTORIZER_MODULE": "none",
        "DISABLE_TELEMETRY": "true",
        "GO_PROFILING_DISABLE": "true",
        # The collector works harder near it instead of the kernel ending the process.
        "GOMEMLIMIT": str(spec.memory_limit_bytes * 85 // 100),
        # Memory maps want a vm.max_map_count that a pod cannot raise.
        "PERSISTENCE_LSM_ACCESS_STRATEGY": "pread",
        "PROMETHEUS_MONITORING_ENABLED": "true",
        "QUERY_DEFAULTS_LIMIT": "25",
    }
    settings = configuration.merged(spec, ours, owned=OWNED, pattern=r"[A-Z][A-Z0-9_]*")
    fixed = {
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
        "AUTHENTICATION_APIKEY_ENABLED": "true",
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": "$(PLAN2_ADMIN_API_KEY),$(PLAN2_APP_API_KEY)",
        "AUTHENTICATION_APIKEY_USERS": USERS,
        # Its identity in the raft log: it must outlive the pod, the address may change.
        "CLUSTER_HOSTNAME": host,
        "PERSISTENCE_DATA_PATH": DATA,
        "RAFT_BOOTSTRAP_EXPECT": "1",
        "RAFT_JOIN": host,
    }
    return [
        manifests.admin_variable(spec, "PLAN2_ADMIN_API_KEY", API_KEY),
        manifests.admin_variable(spec, "PLAN2_APP_API_KEY", APP_API_KEY),
        {
            "name": "CLUSTER_ADVERTISE_ADDR",
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}},
        },
        *(variable(key, value) for key, value in {**fixed, **settings}.items()),
    ]
