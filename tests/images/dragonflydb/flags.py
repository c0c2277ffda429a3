"""Dragonfly's flags: from the command line, a flagfile and DFLY_* variables, or refused."""

import math
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

THREAD_MEMORY = 256 * 1024 * 1024
DEFAULT_SAVE_SECONDS = 900
UNITS = {"b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}

# Known to the real server and without a meaning for Redis, or read below.
_KNOWN = """
    aclfile acllog_max_len admin_bind admin_nopass admin_port alsologtostderr bind
    cache_mode cluster_mode compression_mode conn_io_threads conn_use_incoming_cpu
    dbfilename dbnum default_lua_flags df_snapshot_format dir disk_backpressure_folder
    enable_heartbeat_eviction flagfile force_epoll hz keys_output_limit lock_on_hashtags
    log_dir logbuflevel logtostderr masterauth masteruser max_eviction_per_heartbeat
    maxclients maxmemory memcached_port migrate_connections minloglevel multi_exec_squash
    no_tls_on_admin_port notify_keyspace_events num_shards oom_deny_ratio pidfile
    pipeline_squash port primary_port_http_enabled proactor_affinity_mode proactor_threads
    replicaof requirepass restricted_commands rss_oom_deny_ratio save_schedule
    slowlog_log_slower_than slowlog_max_len snapshot_cron shard_round_robin_prefix
    tcp_backlog tcp_keepalive tcp_nodelay tiered_prefix timeout tls tls_ca_cert_dir
    tls_ca_cert_file tls_cert_file tls_key_file tls_replication unixsocket unixsocketperm
    v vmodule version_check break_replication_on_master_restart
    info_replication_valkey_compatible interpreter_per_thread list_experimental_v2
    maxmemory_policy publish_buffer_limit serialization_max_chunk_size
    squash_stats_latency_lower_limit stderrthreshold pipeline_buffer_limit
    pipeline_queue_limit
"""
KNOWN = frozenset(_KNOWN.split())


class Refused(Exception):
    """The real server would end here with exit code 1, or abort."""


@dataclass(frozen=True)
class Flags:
    """What is understood of them; sizes in bytes."""

    values: dict[str, str]
    maxmemory: int
    proactor_threads: int

    @classmethod
    def read(cls, arguments: list[str], environment: dict[str, str]) -> "Flags":
        """Raise Refused as the real server does on what it does not know or cannot run with."""
        values = _environment(environment)
        values |= _command_line(arguments)
        if flagfile := values.pop("flagfile", ""):
            values = _command_line(_flag_lines(Path(flagfile))) | values
        for name in values:
            if name not in KNOWN:
                raise Refused(f"ERROR: Unknown command line flag '{name}'")
        cpus = os.cpu_count() or 1
        threads = int(values.get("proactor_threads", "0")) or cpus
        memory = parse_size(values.get("maxmemory", "0"))
        if memory and memory < threads * THREAD_MEMORY:
            wanted = threads * THREAD_MEMORY / 1024**2
            raise Refused(f"There are {threads} threads, so {wanted:.2f}MiB are required")
        return cls(values, memory, threads)

    @property
    def port(self) -> int:
        return int(self.values.get("port", "6379"))

    @property
    def admin_port(self) -> int:
        return int(self.values.get("admin_port", "0"))

    @property
    def bind(self) -> str:
        return self.values.get("bind") or "0.0.0.0"

    @property
    def dir(self) -> str:
        return self.values.get("dir") or "/data"

    @property
    def dbfilename(self) -> str:
        return self.values.get("dbfilename", "dump-{timestamp}")

    @property
    def redis_dbfilename(self) -> str:
        """One name for ever: Redis does not number its dumps."""
        stem = self.dbfilename.replace("-{timestamp}", "").replace("{timestamp}", "")
        return f"{stem.removesuffix('.rdb') or 'dump'}.rdb"

    @property
    def save_seconds(self) -> int:
        """The first `*/N` of snapshot_cron, in seconds; finer schedules become 15 minutes."""
        minute, *rest = (self.values.get("snapshot_cron") or "-").split()
        if minute.startswith("*/"):
            return int(minute[2:]) * 60
        return 60 if minute == "*" and rest else DEFAULT_SAVE_SECONDS

    @property
    def aclfile(self) -> str:
        return self.values.get("aclfile", "")

    @property
    def requirepass(self) -> str:
        return self.values.get("requirepass", "")

    @property
    def masterauth(self) -> str:
        return self.values.get("masterauth", "")

    @property
    def replicaof(self) -> str:
        return self.values.get("replicaof", "")

    @property
    def dbnum(self) -> int:
        return int(self.values.get("dbnum", "16"))

    @property
    def maxclients(self) -> int:
        return int(self.values.get("maxclients", "4000"))

    @property
    def cache_mode(self) -> bool:
        return self.values.get("cache_mode", "false") in ("true", "1", "yes")


def parse_size(text: str) -> int:
    """Bytes of `600mb`, `1.5GiB`, `268435456`."""
    text = text.strip().lower().removesuffix("ib").removesuffix("b")
    unit = UNITS.get(text[-1:], 0)
    try:
        return math.floor(float(text[:-1] if unit else text or "0") * (unit or 1))
    except ValueError as error:
        raise Refused(f"ERROR: Illegal value '{text}' specified for flag 'maxmemory'") from error


def _environment(environment: dict[str, str]) -> dict[str, str]:
    values = {}
    for name, value in environment.items():
        if not name.startswith("DFLY_"):
            continue
        flag = name.removeprefix("DFLY_")
        if flag not in KNOWN:
            raise Refused(f"unknown environment variable {name}")
        values[flag] = value
    return values


def _command_line(arguments: list[str]) -> dict[str, str]:
    values = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            raise Refused(f"Unexpected argument '{word}'")
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if not equals:
            if name.startswith("no") and name not in KNOWN and name[2:] in KNOWN:
                name, value = name[2:], "false"
            else:
                value = rest.pop(0) if rest and not rest[0].startswith("-") else "true"
        values[name] = value
    return values


def _flag_lines(path: Path) -> list[str]:
    try:
        text = path.read_text()
    except OSError as error:
        raise Refused(f"ERROR: Could not read flagfile {path}") from error
    lines = (line.strip() for line in text.splitlines())
    return [shlex.split(line)[0] for line in lines if line and not line.startswith("#")]
