"""What the sidecar costs when little is asked of it: memory, and CPU until it listens."""

import contextlib
from collections.abc import Iterator
from statistics import median

from bench import measure, stage
from bench.report import Figure
from bench.stage import ENGINES, Stage
from fixtures.engine_server import EngineServer

STARTS = 5
# Looks go on meanwhile; some of them come once a minute.
IDLE_SECONDS = (3.0, 30.0, 65.0)
CALLS = 100
IDLE_MB = 45.0
CALLED_MB = 85.0
START_CPU_SECONDS = 0.4


def measured(standing: Stage) -> list[Figure]:
    """Six engines configured and running; then 100 calls to each of five."""
    cpu: list[float] = []
    with contextlib.ExitStack() as stack:
        six = standing.engines | stage.start_engines(stack, ["weaviate"])
        for _ in range(STARTS - 1):
            with contextlib.ExitStack() as short:
                cpu.append(_started(short, standing, six)[1])
        sidecar, used = _started(stack, standing, six)
        cpu.append(used)
        idle = max(_idle(sidecar.pid))
        for name in ENGINES:
            for number in range(CALLS):
                _call(sidecar.port, name, number)
        called = measure.memory_mb(sidecar.pid)
    return [
        Figure(
            name="memory, idle, six engines configured",
            value=idle,
            unit="MB",
            bound=IDLE_MB,
            note=f"resident, the most of {', '.join(f'{at:.0f} s' for at in IDLE_SECONDS)} "
            "after the start",
        ),
        Figure(
            name="memory after calls to PostgreSQL, store, ClickHouse, ArangoDB, MongoDB",
            value=called,
            unit="MB",
            bound=CALLED_MB,
            note=f"{CALLS} to each; daprd has {measure.memory_mb(standing.daprd.pid):.0f} MB "
            "with Redis and PostgreSQL",
        ),
        Figure(
            name="CPU from process start to listening",
            value=median(cpu),
            unit="s",
            bound=START_CPU_SECONDS,
            note=f"median of {STARTS}, one answer on /livez included",
        ),
    ]


def _idle(pid: int) -> Iterator[float]:
    waited = 0.0
    for at in IDLE_SECONDS:
        stage.settle(at - waited)
        waited = at
        yield measure.memory_mb(pid)


def _started(
    stack: contextlib.ExitStack, standing: Stage, engines: dict[str, EngineServer]
) -> tuple[stage.Server, float]:
    sidecar = stage.start_sidecar(stack, standing.folder, engines)
    return sidecar, measure.cpu_seconds(sidecar.pid)


def _call(port: int, engine: str, number: int) -> None:
    match engine:
        case "postgresql":
            stage.query(port, engine, "SELECT id, owner FROM accounts WHERE id = $1", params=[1])
        case "dragonflydb":
            stage.query(port, engine, ["GET", f"bench:{number + 1}"])
        case "clickhouse":
            stage.query(port, engine, "SELECT 1 AS one")
        case "arangodb":
            stage.query(port, engine, "RETURN {one: 1}")
        case _:
            operation = {"collection": "bench", "filter": {"one": number}, "limit": 1}
            stage.query(port, engine, operation)
