"""ClickHouse: our configuration over the image's, the administrator in a users.d file.

Users of the image's own environment variables could not be changed in SQL, so that one file
holds the administrator, who makes the others. The settings keep one server in a small memory;
past 4 GiB the server's own defaults hold.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from xml.sax.saxutils import escape

from plan2_contract.connection import Sql
from plan2_contract.engines import PORTS, Engine
from plan2_operator import manifests
from plan2_operator.engines import access, configuration
from plan2_operator.errors import InvalidSpec
from plan2_operator.manifests import METRICS, Pod, Port, http_probe, mount, scratch, variable
from plan2_operator.model import EngineSpec, Manifest, Platform

PORT: Final = PORTS[Engine.CLICKHOUSE]
NATIVE_PORT: Final = 9000
METRICS_PORT: Final = 9363
ADMIN: Final = "plan2_admin"
CONFIG_FILE: Final = "plan2.xml"
USERS_FILE: Final = "users.xml"
SHUTDOWN_SECONDS: Final = 120
OWNED: Final = (
    "http_port",
    "listen_host",
    "path",
    "prometheus",
    "tcp_port",
    "user_directories",
    "users_config",
)
_GIB: Final = 2**30
_MIB: Final = 2**20
_SMALL: Final = 4 * _GIB
# Each writes all the time and is read by nobody on a small server.
_QUIET_LOGS: Final = (
    "asynchronous_metric_log",
    "metric_log",
    "processors_profile_log",
    "text_log",
    "trace_log",
)
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def objects(platform: Platform, spec: EngineSpec) -> list[Manifest]:
    """Everything but Secrets; raises InvalidSpec."""
    return manifests.workload(platform, spec, _pod(spec))


def admin_secret(
    platform: Platform, spec: EngineSpec, previous: Mapping[str, str], generate: Callable[[], str]
) -> dict[str, str]:
    made = access.passwords(previous, generate, username=ADMIN)
    return made | {USERS_FILE: _users(spec, made)}


def app_secret(platform: Platform, spec: EngineSpec, admin: Mapping[str, str]) -> dict[str, str]:
    return access.binding(spec.engine, connection(platform, spec, admin, spec.pool_max))


def connection(
    platform: Platform, spec: EngineSpec, admin: Mapping[str, str], pool_max: int
) -> Sql:
    return access.sql(spec, admin, pool_max, superuser="default")


def max_connections(spec: EngineSpec) -> int | None:
    return None


def _pod(spec: EngineSpec) -> Pod:
    return Pod(
        ports=(
            Port(name="http", number=PORT),
            Port(name="native", number=NATIVE_PORT),
            Port(name=METRICS, number=METRICS_PORT),
        ),
        data_path="/var/lib/clickhouse",
        env=(variable("CLICKHOUSE_SKIP_USER_SETUP", "1"),),
        config={CONFIG_FILE: _configuration(spec)},
        mounts=(
            mount("logs", "/var/log/clickhouse-server"),
            mount(
                "config",
                f"/etc/clickhouse-server/config.d/{CONFIG_FILE}",
                sub_path=CONFIG_FILE,
                read_only=True,
            ),
            mount(
                "admin",
                f"/etc/clickhouse-server/users.d/{CONFIG_FILE}",
                sub_path=USERS_FILE,
                read_only=True,
            ),
        ),
        volumes=(scratch("logs"),),
        startup=http_probe("/ping", PORT, periodSeconds=3, timeoutSeconds=3, failureThreshold=200),
        readiness=http_probe("/ping", PORT, periodSeconds=5, timeoutSeconds=3, failureThreshold=3),
        liveness=http_probe("/ping", PORT, periodSeconds=5, timeoutSeconds=5, failureThreshold=10),
        grace_seconds=SHUTDOWN_SECONDS + 30,
    )


def _configuration(spec: EngineSpec) -> str:
    ours = {
        "logger/console": "1",
        "logger/level": "information",
        "max_server_memory_usage_to_ram_ratio": "0.9",
        "shutdown_wait_unfinished": str(SHUTDOWN_SECONDS),
        "shutdown_wait_unfinished_queries": "1",
        **_small_memory(spec.memory_limit_bytes),
    }
    settings = configuration.merged(
        spec, ours, owned=OWNED, pattern=r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*"
    )
    for key in settings:
        if key.partition("/")[0] in OWNED:
            raise InvalidSpec(f"{spec.path}.configuration.{key}", configuration.OWNED_MESSAGE)
    fixed = [
        # The image listens on :: as well, and a node may have no IPv6.
        '    <listen_host remove="1"/>',
        "    <listen_host>0.0.0.0</listen_host>",
        f"    <http_port>{PORT}</http_port>",
        f"    <tcp_port>{NATIVE_PORT}</tcp_port>",
        '    <mysql_port remove="1"/>',
        '    <postgresql_port remove="1"/>',
        "    <prometheus>",
        "        <endpoint>/metrics</endpoint>",
        f"        <port>{METRICS_PORT}</port>",
        "        <metrics>true</metrics>",
        "        <events>true</events>",
        "        <asynchronous_metrics>true</asynchronous_metrics>",
        "    </prometheus>",
        *(
            f'    <{name} remove="1"/>'
            for name in _QUIET_LOGS
            if not any(key.partition("/")[0] == name for key in spec.configuration)
        ),
    ]
    lines = ["<clickhouse>", *fixed, *_elements(settings), "</clickhouse>"]
    return "\n".join(lines) + "\n"


def _small_memory(limit: int) -> dict[str, str]:
    if limit >= _SMALL:
        return {}
    return {
        "background_pool_size": "4",
        "background_schedule_pool_size": "32",
        "max_concurrent_queries": "64",
        "mark_cache_size": str(max(32 * _MIB, limit // 8)),
        "uncompressed_cache_size": "0",
        # Each must be below twice the pool's size, or no MergeTree table can be made.
        "merge_tree/number_of_free_entries_in_pool_to_execute_mutation": "2",
        "merge_tree/number_of_free_entries_in_pool_to_execute_optimize_entire_partition": "2",
        "merge_tree/number_of_free_entries_in_pool_to_lower_max_size_of_merge": "2",
        "merge_tree/max_bytes_to_merge_at_max_space_in_pool": str(16 * _GIB),
    }


def _elements(settings: Mapping[str, str], depth: int = 1) -> Iterator[str]:
    """`a/b` = v as <a><b>v</b></a>, one <a> for all: a second one would be passed over."""
    indent = "    " * depth
    groups: dict[str, dict[str, str]] = {}
    for key, value in settings.items():
        name, _, rest = key.partition("/")
        if rest:
            groups.setdefault(name, {})[rest] = value
        else:
            yield f"{indent}<{name}>{escape(value)}</{name}>"
    for name, members in groups.items():
        yield f"{indent}<{name}>"
        yield from _elements(members, depth + 1)
        yield f"{indent}</{name}>"


def _users(spec: EngineSpec, admin: Mapping[str, str]) -> str:
    name = admin[access.USERNAME]
    if not _USER.fullmatch(name):
        raise InvalidSpec(
            f"{spec.path}.credentialsSecretRef", f"{name!r} is not the name of a user"
        )
    digest = hashlib.sha256(admin[access.PASSWORD].encode()).hexdigest()
    lines = [
        "<clickhouse>",
        "    <users>",
        *([] if name == "default" else ['        <default remove="1"/>']),
        f"        <{name}>",
        f"            <password_sha256_hex>{digest}</password_sha256_hex>",
        "            <networks><ip>::/0</ip></networks>",
        "            <profile>default</profile>",
        "            <quota>default</quota>",
        "            <access_management>1</access_management>",
        "            <named_collection_control>1</named_collection_control>",
        f"        </{name}>",
        "    </users>",
        "</clickhouse>",
    ]
    return "\n".join(lines) + "\n"
