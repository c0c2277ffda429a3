"""A million rows pass through a sidecar whose memory stays as it was."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from conformance.stream_client import ARROW, NDJSON, half_read
from fixtures.fix_all_engines import variables
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, SidecarProcess, starting

ROWS = 1_000_000
MOST_GROWTH_BYTES = 20_000_000
POSTGRESQL = "SELECT n, 'row ' || n AS text FROM generate_series(1, $1::int) n"
CLICKHOUSE = "SELECT number AS n, concat('row ', toString(number)) AS text FROM numbers({n:UInt64})"


@pytest.fixture(scope="module")
def sidecar(
    postgresql: EngineServer,
    clickhouse: EngineServer,
    arangodb: EngineServer,
    mongodb: EngineServer,
) -> Iterator[SidecarProcess]:
    servers = (postgresql, clickhouse, arangodb, mongodb)
    with starting() as start:
        yield start(
            **{name: value for server in servers for name, value in variables(server).items()}
        )


def memory(sidecar: SidecarProcess, name: str) -> int:
    """A line of /proc/<pid>/status, in bytes."""
    for line in Path(f"/proc/{sidecar.process.pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


async def read_all(
    sidecar: SidecarProcess, engine: str, query: Any, params: Any, accept: str = NDJSON
) -> tuple[int, bytes]:
    """How many line feeds came, and how the stream ended; nothing of it is kept."""
    body = {
        "query": query,
        "targetDatabase": engine,
        "params": params,
        "options": {"timeoutMs": 60_000},
    }
    lines, tail = 0, b""
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{sidecar.url}/api/v2/query", json=body, headers={"Accept": accept}
        ) as response,
    ):
        assert response.status == 200
        async for piece in response.content.iter_any():
            lines += piece.count(b"\n")
            tail = (tail + piece)[-1000:]
    return lines, tail


@pytest.mark.parametrize(
    ("engine", "query", "few", "many"),
    [
        ("postgresql", POSTGRESQL, [20_000], [ROWS]),
        ("clickhouse", CLICKHOUSE, {"n": 20_000}, {"n": ROWS}),
    ],
    ids=["postgresql", "clickhouse"],
)
async def test_a_million_rows_do_not_make_the_sidecar_grow(
    sidecar: SidecarProcess, engine: str, query: str, few: Any, many: Any
) -> None:
    # Drivers are loaded and buffers made by the first.
    await read_all(sidecar, engine, query, few)
    before = memory(sidecar, "VmHWM")

    lines, tail = await read_all(sidecar, engine, query, many)

    end = json.loads(tail.splitlines()[-1])["$end"]
    assert (lines, end["rowCount"]) == (ROWS + 1, ROWS)
    assert memory(sidecar, "VmHWM") - before < MOST_GROWTH_BYTES


async def test_long_rows_of_arangodb_do_not_make_the_sidecar_grow(
    sidecar: SidecarProcess,
) -> None:
    query = "FOR n IN 1..@n RETURN {n, t: @t}"
    await read_all(sidecar, "arangodb", query, {"n": 2000, "t": "x" * 1000})
    before = memory(sidecar, "VmHWM")

    lines, _ = await read_all(sidecar, "arangodb", query, {"n": 40_000, "t": "x" * 1000})

    assert lines == 40_001
    assert memory(sidecar, "VmHWM") - before < MOST_GROWTH_BYTES


async def test_long_documents_of_mongodb_do_not_make_the_sidecar_grow(
    sidecar: SidecarProcess, connect: Connect
) -> None:
    client = connect(sidecar)
    form = {"collection": "long"}
    await client.query({**form, "filter": {}, "delete": "many"}, "mongodb")
    await client.query({**form, "documents": [{"_id": n} for n in range(1500)]}, "mongodb")
    pipeline = [{"$set": {"text": "x" * 30_000}}]
    await read_all(sidecar, "mongodb", {**form, "pipeline": [{"$limit": 200}, *pipeline]}, None)
    before = memory(sidecar, "VmHWM")

    lines, _ = await read_all(sidecar, "mongodb", {**form, "pipeline": pipeline}, None)

    assert lines == 1501
    assert memory(sidecar, "VmHWM") - before < MOST_GROWTH_BYTES


async def test_arrow_of_a_million_rows_does_not_make_the_sidecar_grow(
    sidecar: SidecarProcess,
) -> None:
    await read_all(sidecar, "clickhouse", CLICKHOUSE, {"n": 20_000}, ARROW)
    before = memory(sidecar, "VmHWM")

    _, tail = await read_all(sidecar, "clickhouse", CLICKHOUSE, {"n": ROWS}, ARROW)

    assert tail.endswith(b"\xff\xff\xff\xff\x00\x00\x00\x00")
    assert memory(sidecar, "VmHWM") - before < MOST_GROWTH_BYTES


async def test_a_caller_who_stops_half_way_costs_no_memory(sidecar: SidecarProcess) -> None:
    await read_all(sidecar, "postgresql", POSTGRESQL, [20_000])
    before = memory(sidecar, "VmHWM")
    query = "SELECT n, repeat('x', 1000) AS t FROM generate_series(1, 1000000) n"
    options = {"timeoutMs": 60_000}

    async with (
        half_read(sidecar, query, "postgresql", options=options),
        half_read(sidecar, query, "postgresql", options=options),
        half_read(sidecar, query, "postgresql", options=options),
    ):
        # Long enough to have read all of the rows, were anybody reading.
        await asyncio.sleep(5)
        grown = memory(sidecar, "VmHWM") - before

    assert grown < MOST_GROWTH_BYTES
