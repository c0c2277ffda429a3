"""What the benchmarks run on: real engines, the sidecar, the peers; started and ended here."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers import daprd
from fixtures import engine_commands
from fixtures.engine_server import EngineServer, free_port, run
from tools.build import program

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
START_SECONDS = 30.0
ENGINES = ("postgresql", "dragonflydb", "clickhouse", "arangodb", "mongodb")


class Refused(Exception):
    """A server answered 400 or more; the message holds what it said."""


class NotStarted(Exception):
    """A server ended or stayed silent; the message holds its log."""


@dataclass
class Server:
    """A process that serves HTTP."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass
class Stage:
    """Everything that is running. `uncached` is a sidecar that keeps nothing in its own memory."""

    engines: dict[str, EngineServer]
    sidecar: Server
    uncached: Server
    bare: Server
    daprd: Server
    folder: Path
    stack: contextlib.ExitStack = field(repr=False)

    @property
    def postgresql(self) -> EngineServer:
        return self.engines["postgresql"]

    @property
    def store(self) -> EngineServer:
        return self.engines["dragonflydb"]

    def serve(self, command: Sequence[str], port: int, path: str = "/") -> Server:
        """Start one more server; it ends with the stage."""
        return start(self.stack, command, port, path, self.folder, {})


@contextlib.contextmanager
def standing(folder: Path) -> Iterator[Stage]:
    """The stage, with the rows and keys that the cases read."""
    with contextlib.ExitStack() as stack:
        engines = start_engines(stack, ENGINES)
        bare_port = free_port()
        bare = start(
            stack,
            [sys.executable, str(PEERS / "bare.py"), str(bare_port)],
            bare_port,
            "/",
            folder,
            {},
        )
        ports = (free_port(), free_port(), free_port(), free_port())
        components = folder / "components"
        components.mkdir()
        store, postgresql = engines["dragonflydb"], engines["postgresql"]
        command = daprd.command(program("daprd"), components, ports, store, postgresql)
        stage = Stage(
            engines=engines,
            sidecar=start_sidecar(stack, folder, engines),
            uncached=start_sidecar(stack, folder, engines, PLAN2_CACHE_MAX_BYTES="0"),
            bare=bare,
            daprd=start(stack, command, ports[0], "/v1.0/healthz", folder, {}),
            folder=folder,
            stack=stack,
        )
        fill(stage.sidecar.port)
        yield stage


def start_engines(stack: contextlib.ExitStack, names: Iterable[str]) -> dict[str, EngineServer]:
    """The engines of these names; they end with the stack."""
    return {
        name: stack.enter_context(run(getattr(engine_commands, f"make_{name}")())) for name in names
    }


def start_sidecar(
    stack: contextlib.ExitStack,
    folder: Path,
    engines: dict[str, EngineServer],
    **variables: str,
) -> Server:
    """`python -m plan2_sidecar` over these engines."""
    port, metrics = free_port(), free_port()
    environment = {
        "PLAN2_PORT": str(port),
        "PLAN2_METRICS_PORT": str(metrics),
        "MALLOC_ARENA_MAX": "1",
    }
    for name, server in engines.items():
        environment |= classic(name, server)
    command = [sys.executable, "-m", "plan2_sidecar"]
    return start(stack, command, port, "/livez", folder, environment | variables)


def classic(name: str, server: EngineServer) -> dict[str, str]:
    """The classic environment of one engine."""
    match name:
        case "postgresql":
            prefix, database = "POSTGRES", "app"
        case "clickhouse":
            prefix, database = "CLICKHOUSE", "default"
        case "dragonflydb":
            return {
                "DRAGONFLY_HOST": server.host,
                "DRAGONFLY_PORT": str(server.port),
                "DRAGONFLY_PASSWORD": server.admin_password,
            }
        case "arangodb":
            return {
                "ARANGO_URL": server.url,
                "ARANGO_DB": "_system",
                "ARANGO_PASSWORD": server.admin_password,
            }
        case "weaviate":
            return {
                "WEAVIATE_HOST": server.host,
                "WEAVIATE_PORT": str(server.port),
                "WEAVIATE_API_KEY": server.admin_password,
            }
        case _:
            return {"MONGODB_URL": server.url, "MONGODB_DB": "bench"}
    return {
        f"{prefix}_HOST": server.host,
        f"{prefix}_PORT": str(server.port),
        f"{prefix}_DB": database,
        f"{prefix}_USER": server.admin_user,
        f"{prefix}_PASSWORD": server.admin_password,
    }


def ask(port: int, method: str, path: str, body: Any = None) -> Any:
    """One call; the decoded answer. Raises Refused, and OSError where nobody listens."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=data,
        method=method,
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        said = error.read(500).decode(errors="replace")
        raise Refused(f"{method} {path}: {error.code} {said}") from None
    return json.loads(text) if text else None


def query(port: int, database: str, statement: Any, **asked: Any) -> Any:
    """One statement through a sidecar."""
    body = {"query": statement, "targetDatabase": database, **asked}
    return ask(port, "POST", "/api/v2/query", body)


def fill(port: int) -> None:
    """10,000 accounts in PostgreSQL and 1,000 keys in the store."""
    for statement in (
        "CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance numeric NOT NULL)",
        "INSERT INTO accounts SELECT n, 'owner ' || n, n * 1.25 FROM generate_series(1, 10000) n",
        "ANALYZE accounts",
    ):
        query(port, "postgresql", statement)
    for key in range(1, 1001):
        command = ["SET", f"bench:{key}", json.dumps({"id": key, "text": "x" * 64})]
        query(port, "dragonflydb", command)


def start(
    stack: contextlib.ExitStack,
    command: Sequence[str],
    port: int,
    path: str,
    folder: Path,
    environment: dict[str, str],
) -> Server:
    """A process, once it answers anything on `path`."""
    log = folder / f"{Path(command[-1]).name}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    stack.callback(_end, process)
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            ask(port, "GET", path)
            break
        except Refused:
            break
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise NotStarted(f"{command[0]} did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
    return Server(process, port)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def settle(seconds: float) -> None:
    """Let what was started come to rest."""
    time.sleep(seconds)
