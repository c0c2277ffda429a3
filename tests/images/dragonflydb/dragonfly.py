"""Dragonfly's command line and admin port in front of a real Redis 7.

`dragonfly --flag=value …` is translated into a Redis configuration; Redis serves the main port
itself, with CL.THROTTLE from the redis-cell module. What Redis has no word for is answered here:
refusal of unknown DFLY_* variables, unknown flags and too little memory, and the admin port
(`admin_port`). What differs from Dragonfly in Redis' own commands is left as Redis has it.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
from pathlib import Path

import admin_port
import redis_acl
from flags import Flags, Refused

MODULE = os.environ.get("REDIS_CELL_MODULE", "/usr/lib/redis/libredis_cell.so")
FRONT_USER = "plan2-front"
ACL_POLL_SECONDS = 0.5


def main(arguments: list[str]) -> int:
    """Run until Redis ends; its exit code is ours."""
    if arguments and arguments[0] in ("dragonfly", "redis-server", "redis-cli", "sh"):
        program, *arguments = arguments
        if program != "dragonfly":
            os.execvp(program, [program, *arguments])
    try:
        flags = Flags.read(arguments, dict(os.environ))
    except Refused as refused:
        print(f"F dfly_main.cc] {refused}. Exiting...", file=sys.stderr, flush=True)
        return 1
    return asyncio.run(_serve(flags))


async def _serve(flags: Flags) -> int:
    with tempfile.TemporaryDirectory(prefix="dragonfly-") as state:
        password = secrets.token_hex(16)
        acl = Path(state, "users.acl")
        configuration = _prepare(flags, acl, password, Path(state))
        redis = await asyncio.create_subprocess_exec("redis-server", str(configuration))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _forward, redis)
        tasks = [asyncio.create_task(_follow_acl(flags, acl, password))]
        if flags.admin_port:
            front = admin_port.AdminPort(Path(state, "redis.sock"), FRONT_USER, password)
            tasks.append(asyncio.create_task(front.serve(flags.bind, flags.admin_port)))
        code = await redis.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return code


def _prepare(flags: Flags, acl: Path, password: str, state: Path) -> Path:
    redis_acl.write(acl, flags, FRONT_USER, password)
    configuration = state / "redis.conf"
    configuration.write_text(_configuration(flags, acl, state))
    return configuration


def _forward(redis: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        redis.terminate()


async def _follow_acl(flags: Flags, acl: Path, password: str) -> None:
    """Keep Redis' own copy of the aclfile (with the front's user in it) as the mounted one is.

    Dragonfly reads the mounted file itself on ACL LOAD.
    """
    last = _acl_text(flags)
    while last:
        await asyncio.sleep(ACL_POLL_SECONDS)
        current = _acl_text(flags)
        if current not in ("", last):
            last = current
            redis_acl.write(acl, flags, FRONT_USER, password)


def _acl_text(flags: Flags) -> str:
    """Empty without an aclfile, or while the kubelet replaces it."""
    with contextlib.suppress(OSError):
        return Path(flags.aclfile).read_text() if flags.aclfile else ""
    return ""


def _configuration(flags: Flags, acl: Path, state: Path) -> str:
    Path(flags.dir).mkdir(parents=True, exist_ok=True)
    lines = [
        f"port {flags.port}",
        f"bind {flags.bind}",
        "protected-mode no",
        f'dir "{flags.dir}"',
        f"aclfile {acl}",
        f"unixsocket {state}/redis.sock",
        "unixsocketperm 700",
        "daemonize no",
        "appendonly no",
        f"databases {flags.dbnum}",
        f"maxclients {flags.maxclients}",
        f"maxmemory {flags.maxmemory}",
        f"maxmemory-policy {'allkeys-lru' if flags.cache_mode else 'noeviction'}",
        "rdbcompression yes",
    ]
    if flags.dbfilename:
        # Dragonfly saves on SIGTERM; Redis does so only where a save point is configured.
        lines += [f"dbfilename {flags.redis_dbfilename}", f"save {flags.save_seconds} 1"]
    else:
        lines += ['save ""']
    if flags.masterauth:
        lines += [f'masterauth "{flags.masterauth}"']
    if flags.replicaof:
        lines += [f"replicaof {flags.replicaof.replace(':', ' ')}"]
    if Path(MODULE).exists():
        lines += [f"loadmodule {MODULE}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
