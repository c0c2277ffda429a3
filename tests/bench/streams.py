"""1,000,000 rows of ClickHouse as NDJSON, against a plain server that sends the same bytes."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import measure, stage
from bench.calls import query
from bench.load import Sample, WrongAnswers
from bench.report import Figure, Row
from bench.stage import PEERS, Server, Stage
from fixtures.engine_server import free_port

ROWS = 1_000_000
STATEMENT = (
    "SELECT number AS id, concat('client ', toString(number % 5000)) AS client, "
    "number * 0.25 AS price, toDateTime('2026-01-01 00:00:00', 'UTC') + number AS at "
    "FROM bench_rows"
)
REACH = 0.85
FLAT_MB = 20.0
# A stream takes a tenth of a second, in which much depends on who is where on two cores.
TURNS = 3


def measured(standing: Stage, rounds: int) -> tuple[list[Row], list[Figure]]:
    """The stream is read once into a file; the peer sends that file.

    The promise is about the sidecar, so its row has the plain server in ClickHouse's place too:
    the stand-in for ClickHouse takes longer over a row than either.
    """
    _prepare(standing.sidecar.port)
    body = query(STATEMENT, "clickhouse", timeoutMs=60_000)
    path = "/api/v2/query"
    file = standing.folder / "rows.ndjson"
    whole = _Source(standing.sidecar, f"http://127.0.0.1:{standing.sidecar.port}{path}", body)
    _checked(read(whole.url, body, file), ended=True)
    port = free_port()
    served = standing.serve([sys.executable, str(PEERS / "plain.py"), str(port), str(file)], port)
    plain = _Source(served, f"http://127.0.0.1:{port}/rows", body, ended=False)
    place = {"CLICKHOUSE_HOST": "127.0.0.1", "CLICKHOUSE_PORT": str(port)}
    front = stage.start_sidecar(standing.stack, standing.folder, {}, **place)
    passed = _Source(front, f"http://127.0.0.1:{front.port}{path}", body)
    engine = standing.engines["clickhouse"]
    assert engine.process is not None
    direct = _Source(
        Server(engine.process, engine.port),
        f"http://{engine.admin_user}:{engine.admin_password}@127.0.0.1:{engine.port}/",
        f"{STATEMENT} FORMAT JSONEachRow",
        ended=False,
    )
    before = _forget_peak(standing.sidecar.pid)
    sources = [*(plain, passed) * TURNS, direct, whole]
    samples: dict[str, list[Sample]] = {source.url: [] for source in sources}
    for _ in range(rounds):
        for source in sources:
            samples[source.url].append(_sample(source))
    growth = measure.peak_memory_mb(standing.sidecar.pid) - before
    name = "1,000,000 ClickHouse rows"
    rows = [
        _row(f"{name}, its bytes", "plain HTTP server", samples, plain, passed, REACH),
        _row(f"{name}, its stand-in", "the stand-in asked directly", samples, direct, whole, None),
    ]
    note = "peak while the rows pass, less what it held before"
    name = "memory that 1,000,000 rows add"
    return rows, [Figure(name=name, value=max(0.0, growth), unit="MB", bound=FLAT_MB, note=note)]


@dataclass(frozen=True)
class _Source:
    server: Server
    url: str
    body: str
    ended: bool = True  # with the sidecar's last line


def read(url: str, body: str, file: Path | None = None) -> dict[str, Any]:
    """What the client of the streams says."""
    extra = [] if file is None else [str(file)]
    answer = subprocess.run(
        [sys.executable, str(PEERS / "reader.py"), url, body, *extra],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise WrongAnswers(f"reading {url} failed:\n{answer.stderr}")
    result: dict[str, Any] = json.loads(answer.stdout)
    return result


def _prepare(port: int) -> None:
    for statement in (
        "CREATE TABLE bench_rows (number UInt64) ENGINE = MergeTree ORDER BY number",
        f"INSERT INTO bench_rows SELECT number FROM numbers({ROWS})",
    ):
        stage.query(port, "clickhouse", statement, options={"timeoutMs": 60_000})


def _checked(result: dict[str, Any], *, ended: bool) -> None:
    whole = not ended or result["last"].startswith('{"$end"')
    if result["status"] != 200 or result["rows"] != ROWS + ended or not whole:
        raise WrongAnswers(f"a stream of {ROWS:,} rows came as {result}")


def _sample(source: _Source) -> Sample:
    pid = source.server.pid
    before = measure.cpu_seconds(pid)
    result = read(source.url, source.body)
    _checked(result, ended=source.ended)
    return Sample(
        calls_per_second=1 / result["seconds"],
        p50_us=result["seconds"] * 1e6,
        p99_us=result["seconds"] * 1e6,
        cpu_us_per_call=(measure.cpu_seconds(pid) - before) * 1e6,
        memory_mb=measure.memory_mb(pid),
        bytes_per_second=result["bytes"] / result["seconds"],
    )


def _row(
    name: str,
    peer: str,
    samples: dict[str, list[Sample]],
    theirs: _Source,
    ours: _Source,
    reach: float | None,
) -> Row:
    return Row(
        name=name,
        size="1 connection",
        peer=peer,
        reach=reach,
        peer_samples=samples[theirs.url],
        product_samples=samples[ours.url],
        by="bytes_per_second",
    )


def _forget_peak(pid: int) -> float:
    """Start the peak anew where the kernel lets us; the peak so far, in 10**6 bytes."""
    try:
        descriptor = os.open(f"/proc/{pid}/clear_refs", os.O_WRONLY)
    except OSError:
        return measure.peak_memory_mb(pid)
    try:
        os.write(descriptor, b"5")
    finally:
        os.close(descriptor)
    return measure.peak_memory_mb(pid)
