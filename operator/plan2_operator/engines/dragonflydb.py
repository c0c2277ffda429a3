"""DragonflyDB: flags alone configure it; its users come from the aclfile in the Secret.

It refuses to start with less than 256 MiB of memory for each of its threads, so both are
always given. It saves a snapshot when it is asked to stop, and every five minutes.
"""

from collections.abc import Callable, Mapping
from typing import Final

from plan2_contract.connection import KeyValue
from plan2_contract.engines import DRAGONFLY_ADMIN_PORT, PORTS, Engine
from plan2_operator import manifests
from plan2_operator.engines import access, acl, configuration
from plan2_operator.errors import InvalidSpec
from plan2_operator.manifests import Pod, Port, http_probe, tcp_probe
from plan2_operator.model import EngineSpec, Manifest, Platform

PORT: Final = PORTS[Engine.DRAGONFLYDB]
MINIMUM_MEMORY: Final = 330 * 2**20
THREAD_MEMORY: Final = 256 * 2**20
OWNED: Final = (
    "aclfile",
    "admin_bind",
    "admin_nopass",
    "admin_port",
    "bind",
    "dbfilename",
    "dir",
    "flagfile",
    # It empties the server at every start.
    "replicaof",
    "port",
    "requirepass",
    "tls",
)


def objects(platform: Platform, spec: EngineSpec) -> list[Manifest]:
    """Everything but Secrets; raises InvalidSpec."""
    return manifests.workload(platform, spec, _pod(spec))


def admin_secret(
    platform: Platform, spec: EngineSpec, previous: Mapping[str, str], generate: Callable[[], str]
) -> dict[str, str]:
    access.fixed_username(spec, previous, acl.ADMIN)
    made = access.passwords(previous, generate, username=acl.ADMIN)
    return made | {acl.KEY: acl.users(spec, made)}


def app_secret(platform: Platform, spec: EngineSpec, admin: Mapping[str, str]) -> dict[str, str]:
    return access.binding(spec.engine, connection(platform, spec, admin, spec.pool_max))


def connection(
    platform: Platform, spec: EngineSpec, admin: Mapping[str, str], pool_max: int
) -> KeyValue:
    return access.key_value(spec, admin, pool_max, ro=acl.READ_ONLY)


def max_connections(spec: EngineSpec) -> int | None:
    return None


def _pod(spec: EngineSpec) -> Pod:
    return Pod(
        ports=(
            Port(name="redis", number=PORT),
            Port(name="admin", number=DRAGONFLY_ADMIN_PORT, private=True),
        ),
        data_path="/data",
        args=("dragonfly", *_flags(spec)),
        startup=_health(periodSeconds=2, timeoutSeconds=2, failureThreshold=300),
        readiness=_health(periodSeconds=5, timeoutSeconds=2, failureThreshold=3),
        # Not /healthz: it says no while a snapshot loads, and a restart would begin anew.
        liveness=tcp_probe(
            DRAGONFLY_ADMIN_PORT, periodSeconds=10, timeoutSeconds=5, failureThreshold=6
        ),
        grace_seconds=120,
    )


def _health(**timing: int) -> Mapping[str, object]:
    return http_probe("/healthz", DRAGONFLY_ADMIN_PORT, **timing)


def _flags(spec: EngineSpec) -> list[str]:
    if spec.memory_limit_bytes < MINIMUM_MEMORY:
        raise InvalidSpec(
            f"{spec.path}.resources.limits.memory",
            f"{spec.resources.limits['memory']} is less than the 330Mi DragonflyDB needs",
        )
    memory = spec.memory_limit_bytes * 8 // 10
    ours = {
        "force_epoll": "true",
        "logtostderr": "true",
        "maxmemory": str(memory),
        "proactor_threads": str(max(1, min(spec.cpu_threads, memory // THREAD_MEMORY))),
        "snapshot_cron": "*/5 * * * *",
        "version_check": "false",
    }
    settings = configuration.merged(spec, ours, owned=OWNED, pattern=r"[a-z][a-z0-9_]*")
    fixed = {
        "dir": "/data",
        "dbfilename": "dump",
        "aclfile": f"{manifests.ADMIN_DIRECTORY}/{acl.KEY}",
        "admin_port": str(DRAGONFLY_ADMIN_PORT),
        "admin_nopass": "true",
    }
    return [f"--{key}={value}" for key, value in {**fixed, **settings}.items()]
