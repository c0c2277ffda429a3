"""NDJSON and Arrow over real engines: whole rows, one last line, and what comes in its place."""

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from conformance.stream_client import ARROW, NDJSON, half_read, streamed
from fixtures.fix_all_engines import variables
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import (
    Connect,
    SidecarClient,
    SidecarProcess,
    Start,
    eventually,
    starting,
)

SERIES = "SELECT n FROM generate_series(1, $1::int) n"
LARGE = (
    ("postgresql", "SELECT n, repeat('x', 1000) AS t FROM generate_series(1, 1000000) n", None),
    ("clickhouse", "SELECT number, repeat('x', 1000) AS t FROM numbers(12000)", None),
    ("arangodb", "FOR n IN 1..12000 RETURN {n, t: @t}", {"t": "x" * 1000}),
    (
        "mongodb",
        {"collection": "streamed", "pipeline": [{"$set": {"t": "x" * 40_000}}]},
        None,
    ),
)
SMALL: tuple[tuple[Any, str], ...] = (
    ("SELECT 1 AS a", "postgresql"),
    ("SELECT 1 AS a", "clickhouse"),
    ("RETURN 1", "arangodb"),
    ({"collection": "streamed", "limit": 1}, "mongodb"),
)


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with starting() as start:
        yield start


@pytest.fixture(scope="module")
def sidecar(
    start: Start,
    postgresql: EngineServer,
    clickhouse: EngineServer,
    arangodb: EngineServer,
    mongodb: EngineServer,
    redis_legacy: EngineServer,
) -> SidecarProcess:
    servers = (postgresql, clickhouse, arangodb, mongodb, redis_legacy)
    return start(
        **{name: value for server in servers for name, value in variables(server).items()},
        POSTGRES_POOL_MAX="2",
    )


@pytest.fixture
def client(sidecar: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(sidecar)


@pytest.fixture
async def documents(client: SidecarClient) -> int:
    """How many there are in the collection `streamed`."""
    form = {"collection": "streamed"}
    await client.query({**form, "filter": {}, "delete": "many"}, "mongodb")
    many = [{"_id": n, "text": "line\nfeed"} for n in range(1200)]
    reply = await client.query({**form, "documents": many}, "mongodb")
    assert reply.status == 200
    return len(many)


@pytest.mark.parametrize(
    ("engine", "query", "params", "first", "last"),
    [
        ("postgresql", SERIES, [12_000], {"n": 1}, {"n": 12_000}),
        (
            "clickhouse",
            "SELECT number AS n FROM numbers({n:UInt64})",
            {"n": 12_000},
            {"n": 0},
            {"n": 11_999},
        ),
        ("arangodb", "FOR n IN 1..@n RETURN n", {"n": 12_000}, 1, 12_000),
    ],
    ids=["postgresql", "clickhouse", "arangodb"],
)
async def test_all_rows_come_and_one_last_line(
    sidecar: SidecarProcess, engine: str, query: str, params: Any, first: Any, last: Any
) -> None:
    stream = await streamed(sidecar, query, engine, params=params)

    assert (stream.status, stream.content_type) == (200, NDJSON)
    assert (stream.rows[0], stream.rows[-1], len(stream.rows)) == (first, last, 12_000)
    assert stream.end["rowCount"] == 12_000
    meta = stream.end["meta"]
    assert meta.pop("tookUs") > 0
    assert meta == {
        "database": engine,
        "route": "target",
        "cache": "off",
        "degraded": False,
        "attempts": 1,
    }


async def test_documents_of_mongodb_come_a_batch_at_a_time(
    sidecar: SidecarProcess, documents: int
) -> None:
    found = await streamed(sidecar, {"collection": "streamed", "sort": {"_id": 1}}, "mongodb")
    pipeline = [{"$match": {"_id": {"$lt": 700}}}, {"$project": {"text": 0}}]
    piped = await streamed(sidecar, {"collection": "streamed", "pipeline": pipeline}, "mongodb")

    assert [row["_id"] for row in found.rows] == list(range(documents))
    assert found.rows[0]["text"] == "line\nfeed"
    assert (len(piped.rows), piped.end["rowCount"]) == (700, 700)


@pytest.mark.parametrize(
    ("engine", "query"),
    [
        ("postgresql", "SELECT 1 WHERE false"),
        ("clickhouse", "SELECT 1 WHERE 0"),
        ("arangodb", "FOR n IN [] RETURN n"),
        ("mongodb", {"collection": "streamed", "filter": {"_id": "nobody"}}),
    ],
    ids=["postgresql", "clickhouse", "arangodb", "mongodb"],
)
async def test_no_rows_are_the_last_line_alone(
    sidecar: SidecarProcess, engine: str, query: Any
) -> None:
    stream = await streamed(sidecar, query, engine)

    assert stream.rows == []
    assert stream.end["rowCount"] == 0


async def test_values_of_postgresql_are_those_of_the_answer_as_json(
    sidecar: SidecarProcess, client: SidecarClient
) -> None:
    query = (
        "SELECT 1.50::numeric AS n, now()::date AS d, '\\x00ff'::bytea AS b, NULL AS nothing, "
        "ARRAY[1,2] AS a, 'a\"\\\nb' AS t, $1::jsonb AS j, "
        "'{\"spread\":\n\r\n [1,\n 2]}'::json AS raw, ROW(1, 'x') AS r, "
        "timestamptz '2026-01-02 03:04:05+02' AS at FROM generate_series(1, 3)"
    )

    stream = await streamed(sidecar, query, "postgresql", params=[{"k": "v\n"}])
    whole = await client.query(query, "postgresql", params=[{"k": "v\n"}])

    assert stream.rows == whole.body["data"]
    assert len(stream.rows) == 3


@pytest.mark.parametrize("query", ["SHOW TimeZone", "EXPLAIN SELECT 1"], ids=["show", "explain"])
async def test_what_cannot_be_wrapped_streams_too(
    sidecar: SidecarProcess, client: SidecarClient, query: str
) -> None:
    stream = await streamed(sidecar, query, "postgresql")

    assert stream.rows == (await client.query(query, "postgresql")).body["data"]


@pytest.mark.parametrize(
    ("engine", "query"),
    [
        ("postgresql", "SELECT n FROM generate_series(1, 3000) n"),
        ("clickhouse", "SELECT number FROM numbers(3000)"),
        ("arangodb", "FOR n IN 1..3000 RETURN n"),
        ("mongodb", {"collection": "streamed"}),
    ],
    ids=["postgresql", "clickhouse", "arangodb", "mongodb"],
)
@pytest.mark.usefixtures("documents")
async def test_max_rows_is_kept_where_it_is_given(
    sidecar: SidecarProcess, engine: str, query: Any
) -> None:
    stream = await streamed(sidecar, query, engine, options={"maxRows": 700})

    assert (len(stream.rows), stream.end["rowCount"]) == (700, 700)
    assert stream.end["meta"]["truncated"] is True


@pytest.mark.parametrize(
    ("engine", "query", "status", "code"),
    [
        ("postgresql", "SELECT nothing FROM nowhere", 422, "query_rejected"),
        ("postgresql", "SELECT 1/0", 422, "query_rejected"),
        ("postgresql", "SELECT $1::int", 400, "parameter_mismatch"),
        ("clickhouse", "SELECT nothing FROM nowhere", 422, "query_rejected"),
        ("clickhouse", "SELECT 1 FORMAT CSV", 422, "query_rejected"),
        ("arangodb", "FOR x IN", 422, "query_rejected"),
        ("mongodb", {"collection": "streamed", "filter": {"$no": 1}}, 422, "query_rejected"),
        ("postgresql", "SELECT pg_sleep(20)", 504, "deadline_exceeded"),
        ("weaviate", "{ Get { A { b } } }", 406, "not_acceptable"),
        ("redis", ["GET", "k"], 406, "not_acceptable"),
        ("mongodb", {"collection": "c", "documents": [{}]}, 406, "not_acceptable"),
    ],
)
@pytest.mark.usefixtures("documents")
async def test_what_fails_before_the_first_row_is_a_problem_with_its_status(
    sidecar: SidecarProcess, engine: str, query: Any, status: int, code: str
) -> None:
    stream = await streamed(sidecar, query, engine, options={"timeoutMs": 1500})

    assert (stream.status, stream.problem["code"]) == (status, code)
    assert stream.content_type == "application/problem+json"


async def test_arrow_is_not_acceptable_where_it_cannot_be_had(sidecar: SidecarProcess) -> None:
    refused = await streamed(sidecar, "SELECT 1 AS a", "postgresql", accept=ARROW)
    second = await streamed(sidecar, "SELECT 1 AS a", "postgresql", accept=f"{ARROW}, {NDJSON}")
    third = await streamed(sidecar, ["GET", "k"], "redis", accept=f"{NDJSON}, */*;q=0.1")

    assert (refused.status, refused.problem["code"]) == (406, "not_acceptable")
    assert second.rows == [{"a": 1}]
    assert (third.status, third.content_type) == (200, "application/json")


async def test_an_error_behind_rows_is_the_last_line(
    sidecar: SidecarProcess, client: SidecarClient
) -> None:
    query = "SELECT 1 / (5000 - n) AS r FROM generate_series(1, 9000) n"

    stream = await streamed(sidecar, query, "postgresql")

    assert stream.status == 200
    assert 0 < len(stream.rows) < 5000
    assert (stream.error["code"], stream.error["engineCode"]) == ("query_rejected", "22012")
    assert (await client.query("SELECT 1 AS a", "postgresql")).status == 200


async def test_the_deadline_is_the_whole_streams(sidecar: SidecarProcess) -> None:
    query = "SELECT n, pg_sleep(0.004) FROM generate_series(1, 100000) n"

    stream = await streamed(sidecar, query, "postgresql", options={"timeoutMs": 1500})

    assert len(stream.rows) >= 50
    assert (stream.error["code"], stream.error["retryable"]) == ("deadline_exceeded", True)


async def test_arrow_is_clickhouses_own_bytes(
    sidecar: SidecarProcess, clickhouse: EngineServer
) -> None:
    query = "SELECT number, toString(number) AS text FROM numbers(20000)"
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"http://{clickhouse.host}:{clickhouse.port}/?default_format=ArrowStream",
            data=query,
            headers={
                "X-ClickHouse-User": clickhouse.admin_user,
                "X-ClickHouse-Key": clickhouse.admin_password,
            },
        ) as response,
    ):
        direct = await response.read()

    stream = await streamed(sidecar, query, "clickhouse", accept=ARROW)

    assert (stream.status, stream.content_type) == (200, ARROW)
    assert stream.content == direct


async def test_a_write_streams_what_it_returns_and_counts_when_it_ended(
    sidecar: SidecarProcess, client: SidecarClient
) -> None:
    await client.query("DROP TABLE IF EXISTS streamed", "postgresql")
    await client.query("CREATE TABLE streamed (n int)", "postgresql")
    insert = "INSERT INTO streamed SELECT * FROM generate_series(1, 3000) RETURNING n"

    returned = await streamed(sidecar, insert, "postgresql")
    updated = await streamed(sidecar, "UPDATE streamed SET n = n + 1", "postgresql")
    refused = await streamed(
        sidecar, "DELETE FROM streamed RETURNING n", "postgresql", options={"readOnly": True}
    )
    left = await client.query("SELECT count(*) AS n, min(n) AS least FROM streamed", "postgresql")

    assert returned.end["rowCount"] == 3000
    assert (updated.rows, updated.end["rowCount"]) == ([], 3000)
    assert (refused.status, refused.problem["code"]) == (403, "read_only")
    assert left.body["data"] == [{"n": 3000, "least": 2}]


async def test_a_write_whose_caller_hung_up_is_taken_back(
    sidecar: SidecarProcess, client: SidecarClient
) -> None:
    await client.query("DROP TABLE IF EXISTS streamed", "postgresql")
    await client.query("CREATE TABLE streamed (n int, t text)", "postgresql")
    insert = (
        "INSERT INTO streamed SELECT n, repeat('x', 1000) FROM generate_series(1, 50000) n "
        "RETURNING n, t"
    )

    async with half_read(sidecar, insert, "postgresql") as half:
        assert b"200 OK" in half.begun

    async def nothing_is_left() -> bool:
        reply = await client.query(
            "SELECT (SELECT count(*) FROM streamed) AS n, count(*) AS open FROM pg_stat_activity "
            "WHERE application_name = 'plan2-sidecar' AND xact_start IS NOT NULL "
            "AND pid <> pg_backend_pid()",
            "postgresql",
        )
        return bool(reply.body["data"] == [{"n": 0, "open": 0}])

    await eventually(nothing_is_left)


@pytest.mark.usefixtures("documents")
async def test_callers_who_stop_reading_are_hung_up_on_at_the_deadline(
    sidecar: SidecarProcess, client: SidecarClient
) -> None:
    async def none_in_use(engine: str) -> bool:
        about = (await client.get("/api/v2/databases")).body["engines"][engine]
        return bool(about["pool"]["inUse"] == 0)

    async def stalled(engine: str, query: Any, params: Any) -> bytes:
        options = {"timeoutMs": 4000}
        async with half_read(sidecar, query, engine, params=params, options=options) as half:
            assert half.begun.startswith(b"HTTP/1.1 200 OK")
            await eventually(half.hung_up, seconds=30)
            await eventually(lambda: none_in_use(engine))
            return await half.rest()

    rest = await asyncio.gather(*(stalled(*case) for case in LARGE))
    well = await asyncio.gather(*(streamed(sidecar, *case) for case in SMALL))

    assert [b"$end" in each for each in rest] == [False] * len(LARGE)
    assert [stream.end["rowCount"] for stream in well] == [1] * len(SMALL)


async def test_callers_who_hang_up_half_way_leave_their_places(
    sidecar: SidecarProcess, client: SidecarClient
) -> None:
    query = LARGE[0][1]
    for _ in range(4):
        async with half_read(sidecar, query, "postgresql", options={"timeoutMs": 60000}):
            pass

    async def answered() -> bool:
        reply = await client.query(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'plan2-sidecar' "
            "AND state <> 'idle' AND pid <> pg_backend_pid()",
            "postgresql",
        )
        return bool(reply.status == 200 and reply.body["data"] == [{"n": 0}])

    await eventually(answered)


async def test_a_stream_holds_its_place(sidecar: SidecarProcess, client: SidecarClient) -> None:
    query = LARGE[0][1]
    async with (
        half_read(sidecar, query, "postgresql", options={"timeoutMs": 60000}),
        half_read(sidecar, query, "postgresql", options={"timeoutMs": 60000}),
    ):
        refused = await client.query("SELECT 1", "postgresql")

    assert (refused.status, refused.body["code"]) == (503, "bulkhead_full")
