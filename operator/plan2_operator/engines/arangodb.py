"""ArangoDB: a single server, started by its image's own entrypoint, settings as arguments."""

from collections.abc import Callable, Mapping
from typing import Final

from plan2_contract.connection import Sql
from plan2_contract.engines import PORTS, Engine
from plan2_operator import manifests
from plan2_operator.engines import access, configuration
from plan2_operator.manifests import Pod, Port, http_probe, mount, scratch, tcp_probe, variable
from plan2_operator.model import EngineSpec, Manifest, Platform

PORT: Final = PORTS[Engine.ARANGODB]
ROOT: Final = "root"
AVAILABILITY: Final = "/_admin/server/availability"
OWNED: Final = (
    "configuration",
    "database.directory",
    "javascript.app-path",
    "server.authentication",
    "server.endpoint",
)


def objects(platform: Platform, spec: EngineSpec) -> list[Manifest]:
    """Everything but Secrets; raises InvalidSpec."""
    return manifests.workload(platform, spec, _pod(spec))


def admin_secret(
    platform: Platform, spec: EngineSpec, previous: Mapping[str, str], generate: Callable[[], str]
) -> dict[str, str]:
    access.fixed_username(spec, previous, ROOT)
    return access.passwords(previous, generate, username=ROOT)


def app_secret(platform: Platform, spec: EngineSpec, admin: Mapping[str, str]) -> dict[str, str]:
    return access.binding(spec.engine, connection(platform, spec, admin, spec.pool_max))


def connection(
    platform: Platform, spec: EngineSpec, admin: Mapping[str, str], pool_max: int
) -> Sql:
    return access.sql(spec, admin, pool_max, superuser=ROOT)


def max_connections(spec: EngineSpec) -> int | None:
    return None


def _pod(spec: EngineSpec) -> Pod:
    settings = configuration.merged(
        spec, {}, owned=OWNED, pattern=r"[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)+"
    )
    return Pod(
        ports=(Port(name="http", number=PORT),),
        data_path="/var/lib/arangodb3",
        args=(
            "arangod",
            f"--server.endpoint=tcp://0.0.0.0:{PORT}",
            *(f"--{key}={value}" for key, value in settings.items()),
        ),
        env=(
            variable("ARANGO_ROOT_PASSWORD_FILE", f"{manifests.ADMIN_DIRECTORY}/{access.PASSWORD}"),
            # It sees the node's memory and cores, not the container's.
            variable(
                "ARANGODB_OVERRIDE_DETECTED_TOTAL_MEMORY", str(spec.memory_limit_bytes * 9 // 10)
            ),
            *(
                [variable("ARANGODB_OVERRIDE_DETECTED_NUMBER_OF_CORES", str(spec.cpu_threads))]
                if spec.cpu_limit is not None
                else []
            ),
        ),
        mounts=(mount("apps", "/var/lib/arangodb3-apps"),),
        volumes=(scratch("apps"),),
        # Six hours: the write-ahead log is replayed before it answers.
        startup=http_probe(
            AVAILABILITY, PORT, periodSeconds=5, timeoutSeconds=2, failureThreshold=4320
        ),
        readiness=http_probe(
            AVAILABILITY, PORT, periodSeconds=5, timeoutSeconds=2, failureThreshold=3
        ),
        # Availability says no while the server is merely busy.
        liveness=tcp_probe(PORT, periodSeconds=10, timeoutSeconds=5, failureThreshold=6),
        grace_seconds=120,
    )
