"""`mongod` for tests: FerretDB over SQLite behind a front that knows users and replica sets.

Honours the command line and the variables of the official image. Run with any other first word,
it becomes that program.
"""

import argparse
import asyncio
import os
import signal
import stat
import sys
import tempfile
from pathlib import Path

from front import Front
from replica_set import ReplicaSet
from users import Users

FERRETDB = os.environ.get("FERRETDB", "/usr/local/bin/ferretdb")
FERRETDB_START_SECONDS = 30


def main(arguments: list[str]) -> int:
    """Run until SIGTERM; 1 for a command line or a key file that mongod would refuse."""
    if arguments and not arguments[0].startswith("-") and arguments[0] != "mongod":
        os.execvp(arguments[0], arguments)
    options = _options(arguments[1:] if arguments[:1] == ["mongod"] else arguments)
    if options.keyFile and (complaint := _key_complaint(Path(options.keyFile))):
        print(f"F  CONTROL  [main] {complaint}", file=sys.stderr, flush=True)
        return 1
    return asyncio.run(_serve(options))


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("mongod", allow_abbrev=False)
    parser.add_argument("--replSet", default="")
    parser.add_argument("--keyFile", default="")
    parser.add_argument("--auth", action="store_true")
    parser.add_argument("--bind_ip", default="")
    parser.add_argument("--bind_ip_all", action="store_true")
    parser.add_argument("--port", type=int, default=27017)
    parser.add_argument("--dbpath", default="/data/db")
    for ignored in ("--wiredTigerCacheSizeGB", "--oplogSize", "--setParameter", "--profile"):
        parser.add_argument(ignored, action="append")
    for ignored in ("--slowms", "--maxConns", "--logpath", "--tlsMode", "--journalCommitInterval"):
        parser.add_argument(ignored)
    for ignored in ("--quiet", "--ipv6", "--directoryperdb", "--logappend"):
        parser.add_argument(ignored, action="store_true")
    return parser.parse_args(arguments)


def _key_complaint(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        text = "".join(file.read_text().split())
    except OSError as error:
        return f"Error reading file {file}: {error.strerror}"
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"permissions on {file} are too open"
    if not 6 <= len(text) <= 1024:
        return f"security key in {file} has length {len(text)}, must be between 6 and 1024 chars"
    return ""


async def _serve(options: argparse.Namespace) -> int:
    data = Path(options.dbpath)
    users, replica_set, authorised = _state(data, options)
    with tempfile.TemporaryDirectory(prefix="mongod-") as work:
        line = Path(work, "ferretdb.sock")
        ferretdb = await asyncio.create_subprocess_exec(*_ferretdb(data / "ferretdb", line))
        try:
            await _listening(line, ferretdb)
            front = Front(users, replica_set, line, options.port, authorised)
            hosts = ["0.0.0.0"] if options.bind_ip_all else _hosts(options.bind_ip)
            server = await asyncio.start_server(front.accept, hosts, options.port)
            print(f"Waiting for connections on port {options.port}", flush=True)
            code = await _until_asked(front, ferretdb)
            server.close()
        finally:
            if ferretdb.returncode is None:
                ferretdb.terminate()
                await ferretdb.wait()
    return code


def _state(data: Path, options: argparse.Namespace) -> tuple[Users, ReplicaSet, bool]:
    (data / "ferretdb").mkdir(parents=True, exist_ok=True)
    users = Users(data / "users.json")
    name, password = _variable("USERNAME"), _variable("PASSWORD")
    initialised = data / "storage.bson"
    if not initialised.exists():
        if bool(name) != bool(password):
            raise SystemExit(
                "error: both MONGO_INITDB_ROOT_USERNAME and _PASSWORD must be specified"
            )
        if name:
            users.create("admin", name, password, ["root"])
        initialised.touch()
    replica_set = ReplicaSet(options.replSet, data / "replset.json")
    return users, replica_set, bool(options.keyFile or options.auth or name)


def _variable(which: str) -> str:
    name = f"MONGO_INITDB_ROOT_{which}"
    direct, file = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if direct and file:
        raise SystemExit(f"error: both {name} and {name}_FILE are set (but are exclusive)")
    return Path(file).read_text().rstrip("\n") if file else direct or ""


def _hosts(bind_ip: str) -> list[str]:
    return [host.strip() for host in bind_ip.split(",") if host.strip()] or ["127.0.0.1"]


def _ferretdb(state: Path, line: Path) -> list[str]:
    return [
        FERRETDB,
        "--handler=sqlite",
        f"--sqlite-url=file:{state}/",
        f"--state-dir={state}",
        "--listen-addr=",
        f"--listen-unix={line}",
        "--debug-addr=-",
        "--telemetry=disable",
        "--log-level=error",
    ]


async def _listening(line: Path, ferretdb: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(FERRETDB_START_SECONDS):
        while ferretdb.returncode is None:
            try:
                _, writer = await asyncio.open_unix_connection(str(line))
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
    raise SystemExit(f"ferretdb ended with {ferretdb.returncode}")


async def _until_asked(front: Front, ferretdb: asyncio.subprocess.Process) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, front.shutdown.set)
    asked = asyncio.create_task(front.shutdown.wait())
    ended = asyncio.create_task(ferretdb.wait())
    await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
    for task in (asked, ended):
        task.cancel()
    return 0 if front.shutdown.is_set() else 14


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
