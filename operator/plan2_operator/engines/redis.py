"""The legacy Redis on 6380: an empty store of its own, for what has not moved to Dragonfly."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from plan2_contract.connection import KeyValue
from plan2_operator import manifests
from plan2_operator.engines import access, acl, configuration
from plan2_operator.manifests import Pod, Port, exec_probe, mount
from plan2_operator.model import EngineSpec, Manifest, Platform

CONFIG_FILE: Final = "redis.conf"
OWNED: Final = (
    "aclfile",
    "bind",
    "daemonize",
    "dir",
    "include",
    "port",
    "protected-mode",
    "requirepass",
    "unixsocket",
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
        ports=(Port(name="redis", number=spec.port),),
        data_path="/data",
        args=("redis-server", f"{manifests.CONFIG_DIRECTORY}/{CONFIG_FILE}"),
        env=(manifests.admin_variable(spec, "REDISCLI_AUTH", access.PASSWORD),),
        config={CONFIG_FILE: _configuration(spec)},
        mounts=(mount("config", manifests.CONFIG_DIRECTORY, read_only=True),),
        startup=_ping(spec, "*PONG*", periodSeconds=2, timeoutSeconds=5, failureThreshold=300),
        readiness=_ping(spec, "*PONG*", periodSeconds=5, timeoutSeconds=5, failureThreshold=3),
        liveness=_ping(
            spec,
            "*PONG*|*LOADING*|*BUSY*",
            periodSeconds=10,
            timeoutSeconds=5,
            failureThreshold=6,
        ),
        grace_seconds=120,
    )


def _ping(spec: EngineSpec, accepted: str, **timing: int) -> Mapping[str, Any]:
    # redis-cli ends with 0 whatever the answer is.
    ask = f"redis-cli -p {spec.port} --user {acl.ADMIN} PING 2>&1"
    script = f'case "$({ask})" in {accepted}) exit 0;; esac; exit 1'
    return exec_probe("/bin/sh", "-c", script, **timing)


def _configuration(spec: EngineSpec) -> str:
    ours = {
        # A snapshot forks, and the child's copies need room.
        "maxmemory": str(spec.memory_limit_bytes * 6 // 10),
        "maxmemory-policy": "noeviction",
        "save": "900 1 300 10 60 10000",
    }
    settings = configuration.merged(spec, ours, owned=OWNED, pattern=r"[a-z][a-z0-9-]*")
    fixed = {
        "bind": "* -::*",
        "port": str(spec.port),
        "protected-mode": "no",
        "dir": "/data",
        "aclfile": f"{manifests.ADMIN_DIRECTORY}/{acl.KEY}",
    }
    return "".join(f"{key} {value}\n" for key, value in {**fixed, **settings}.items())
