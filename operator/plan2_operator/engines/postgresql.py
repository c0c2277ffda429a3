"""PostgreSQL: one server, its configuration in a ConfigMap, its superuser from the Secret."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from plan2_contract.connection import Sql
from plan2_contract.engines import PORTS, Engine
from plan2_operator import manifests
from plan2_operator.engines import access, configuration
from plan2_operator.errors import InvalidSpec
from plan2_operator.manifests import Pod, Port, exec_probe, mount, scratch, variable
from plan2_operator.model import EngineSpec, Manifest, Platform

PORT: Final = PORTS[Engine.POSTGRESQL]
SUPERUSER: Final = "postgres"
CONFIG_FILE: Final = "postgresql.conf"
MAX_CONNECTIONS: Final = 200
OWNED: Final = (
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "listen_addresses",
    "port",
    "unix_socket_directories",
)
# What images without a version in their tag are taken for.
_DEFAULT_MAJOR: Final = 17
_OLD_LAYOUT: Final = "/var/lib/postgresql/data"
_NEW_LAYOUT: Final = "/var/lib/postgresql"
_MIB: Final = 2**20


def objects(platform: Platform, spec: EngineSpec) -> list[Manifest]:
    """Everything but Secrets; raises InvalidSpec."""
    return manifests.workload(platform, spec, _pod(spec))


def admin_secret(
    platform: Platform, spec: EngineSpec, previous: Mapping[str, str], generate: Callable[[], str]
) -> dict[str, str]:
    return access.passwords(previous, generate, username=SUPERUSER)


def app_secret(platform: Platform, spec: EngineSpec, admin: Mapping[str, str]) -> dict[str, str]:
    return access.binding(spec.engine, connection(platform, spec, admin, spec.pool_max))


def connection(
    platform: Platform, spec: EngineSpec, admin: Mapping[str, str], pool_max: int
) -> Sql:
    return access.sql(spec, admin, pool_max, superuser=SUPERUSER)


def max_connections(spec: EngineSpec) -> int | None:
    """Of a managed server; raises InvalidSpec when the user's is no number."""
    if not spec.managed:
        return None
    # PostgreSQL knows its settings in any case.
    settings = {key.lower(): value for key, value in spec.configuration.items()}
    given = settings.get("max_connections", str(MAX_CONNECTIONS))
    try:
        return int(given)
    except ValueError:
        path = f"{spec.path}.configuration.max_connections"
        raise InvalidSpec(path, f"{given!r} is not a number") from None


def data_path(image: str) -> str:
    """Where an image has its volume: since version 18 one directory higher."""
    return _NEW_LAYOUT if _major(image) >= 18 else _OLD_LAYOUT


def _pod(spec: EngineSpec) -> Pod:
    path = data_path(spec.image)
    new = path == _NEW_LAYOUT
    pgdata = f"{path}/{_major(spec.image)}/docker" if new else f"{path}/pgdata"
    return Pod(
        ports=(Port(name="postgresql", number=PORT),),
        data_path=path,
        args=("postgres", "-c", f"config_file={manifests.CONFIG_DIRECTORY}/{CONFIG_FILE}"),
        env=(
            manifests.admin_variable(spec, "POSTGRES_USER", access.USERNAME),
            variable("POSTGRES_DB", spec.database),
            variable("POSTGRES_PASSWORD_FILE", f"{manifests.ADMIN_DIRECTORY}/{access.PASSWORD}"),
            # The image trusts everyone on the socket and on loopback otherwise.
            variable(
                "POSTGRES_INITDB_ARGS", "--auth-local=scram-sha-256 --auth-host=scram-sha-256"
            ),
            variable("PGDATA", pgdata),
        ),
        config={CONFIG_FILE: _configuration(spec)},
        mounts=(
            mount("config", manifests.CONFIG_DIRECTORY, read_only=True),
            mount("run", "/var/run/postgresql"),
            mount("shm", "/dev/shm"),
        ),
        volumes=(
            scratch("run"),
            scratch("shm", memory_bytes=max(64 * _MIB, spec.memory_limit_bytes // 4)),
        ),
        # By TCP: while the image initialises, only the socket listens.
        startup=_ready(periodSeconds=2, timeoutSeconds=5, failureThreshold=1800),
        readiness=_ready(periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
        liveness=_ready(periodSeconds=10, timeoutSeconds=5, failureThreshold=6),
        grace_seconds=180,
    )


def _ready(**timing: int) -> Mapping[str, Any]:
    return exec_probe("pg_isready", "-h", "127.0.0.1", "-p", str(PORT), "-U", SUPERUSER, **timing)


def _major(image: str) -> int:
    match = re.search(r":(\d+)[^/]*$", image.partition("@")[0])
    return int(match[1]) if match else _DEFAULT_MAJOR


def _configuration(spec: EngineSpec) -> str:
    memory = spec.memory_limit_bytes // _MIB
    ours = {
        "max_connections": str(MAX_CONNECTIONS),
        # A quarter of the memory: past that the page cache starves.
        "shared_buffers": f"{max(32, memory // 4)}MB",
        "effective_cache_size": f"{max(32, memory * 7 // 10)}MB",
        "maintenance_work_mem": f"{max(16, memory // 16)}MB",
        "work_mem": f"{max(1, memory // 256)}MB",
        "password_encryption": "scram-sha-256",
        "log_timezone": "UTC",
        "timezone": "UTC",
    }
    settings = configuration.merged(spec, ours, owned=OWNED, pattern=r"[A-Za-z_][A-Za-z0-9_.]*")
    fixed = {
        "listen_addresses": "*",
        "port": str(PORT),
        "unix_socket_directories": "/var/run/postgresql",
    }
    return "".join(f"{key} = {_quoted(value)}\n" for key, value in {**fixed, **settings}.items())


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
