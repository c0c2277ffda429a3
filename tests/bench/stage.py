"""What the benchmarks run on: real engines, the sidecar, the peers; started and ended here."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
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
    """Everything that is running."""

    postgresql: EngineServer
    store: EngineServer
    clickhouse: EngineServer
    arangodb: EngineServer
    mongodb: EngineServer
    sidecar: Server
    bare: Server
    daprd: Server
    folder: Path
    stack: contextlib.ExitStack = field(repr=False)

    def serve(self, command: Sequence[str], port: int, path: str = "/") -> Server:
        """Start one more server; it ends with the stage."""
        return _start(self.stack, command, port, path, self.folder, {})


@contextlib.contextmanager
def standing(folder: Path) -> Iterator[Stage]:
    """The stage, warmed up with the rows and keys that the cases read."""
    with contextlib.ExitStack() as stack:
        engines = {
            name: stack.enter_context(run(getattr(engine_commands, f"make_{name}")()))
            for name in ("postgresql", "dragonflydb", "clickhouse", "arangodb", "mongodb")
        }
        postgresql, store = engines["postgresql"], engines["dragonflydb"]
        sidecar = start_sidecar(stack, folder, engines)
        bare_port = free_port()
        bare = _start(
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
        command = daprd.command(program("daprd"), components, ports, store, postgresql)
        dapr = _start(stack, command, ports[0], "/v1.0/healthz", folder, {})
        stage = Stage(
            postgresql=postgresql,
            store=store,
            clickhouse=engines["clickhouse"],
            arangodb=engines["arangodb"],
            mongodb=engines["mongodb"],
            sidecar=sidecar,
            bare=bare,
            daprd=dapr,
            folder=folder,
            stack=stack,
        )
        _fill(stage)
        yield stage


def start_sidecar(
    stack: contextlib.ExitStack, folder: Path, engines: dict[str, EngineServer]
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
    return _start(stack, command, port, "/livez", folder, environment)


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
    """One call; the decoded answer. Raises what urllib raises."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=data,
        method=method,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def _fill(stage: Stage) -> None:
    query = "/api/v2/query"
    for statement in (
        "CREATE TABLE accounts (id int PRIMARY KEY, owner text NOT NULL, balance numeric NOT NULL)",
        "INSERT INTO accounts SELECT n, 'owner ' || n, n * 1.25 FROM generate_series(1, 10000) n",
        "ANALYZE accounts",
    ):
        ask(
            stage.sidecar.port,
            "POST",
            query,
            {"query": statement, "targetDatabase": "postgresql"},
        )
    for key in range(1, 1001):
        command = ["SET", f"bench:{key}", json.dumps({"id": key, "text": "x" * 64})]
        ask(
            stage.sidecar.port,
            "POST",
            query,
            {"query": command, "targetDatabase": "dragonflydb"},
        )


def _start(
    stack: contextlib.ExitStack,
    command: Sequence[str],
    port: int,
    path: str,
    folder: Path,
    environment: dict[str, str],
) -> Server:
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
        except urllib.error.HTTPError:
            break
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
    return Server(process, port)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
