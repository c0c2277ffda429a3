"""PostgreSQL's own promises: values as `to_json` gives them, one statement, a clean session."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from conformance.engine_cases import ENCODER, POSTGRESQL, connection, opened, plain, run
from fixtures.fix_engines import EngineServer
from plan2_contract.connection import Login, Sql
from plan2_contract.engines import Engine
from plan2_sidecar.api import wire
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import EngineClient
from plan2_sidecar.engines.postgresql_errors import ERRORS, translate
from plan2_sidecar.errors import (
    Conflict,
    DeadlineExceeded,
    EngineAuthFailed,
    EngineUnavailable,
    InvalidRequest,
    MultipleStatements,
    ParameterMismatch,
    PermissionDenied,
    QueryRejected,
    ReadOnly,
    StoreFull,
)
from plan2_sidecar.query import Query, Result

VALUES = {
    "smallint": "7",
    "integer": "-7",
    "bigint": "9223372036854775807",
    "numeric": "12345678901234567890.12345678901234567890",
    "numeric(10,3)": "1.500",
    "real": "1.5",
    "double precision": "0.1",
    "boolean": "true",
    "text": 'a "b" \\ \n ü 🙂',
    "varchar(5)": "abc",
    "char(3)": "a",
    "uuid": "6f1c1f0e-7d55-4c2f-9d7e-1d3a3f1b0c11",
    "date": "2024-02-29",
    "time": "01:02:03.5",
    "timetz": "01:02:03+02",
    "timestamp": "2024-02-29 01:02:03.123456",
    "timestamptz": "2024-02-29 01:02:03+02",
    "interval": "1 mon 2 days 03:04:05.6",
    "bytea": "\\xdeadbeef",
    "json": '{"a":  1, "a": [1.10]}',
    "jsonb": '{"b": null, "a": 1.10}',
    "inet": "10.0.0.1/8",
    "integer[]": "{1,NULL,3}",
    "numeric[]": "{1.50,2}",
    "text[]": '{"a b",c}',
    "int4range": "[1,5)",
    "timestamptz[]": '{"2024-02-29 01:02:03+02"}',
    "money": "12.50",
    "bit(3)": "101",
    "point": "(1,2)",
}

# Where a parameter is not a string.
AS_JSON: dict[str, Any] = {
    "boolean": True,
    "integer[]": [1, None, "3"],
    "numeric[]": ["1.50", 2],
    "text[]": ["a b", "c"],
    "timestamptz[]": ["2024-02-29 01:02:03+02"],
}


@pytest.fixture
async def client(postgresql: EngineServer) -> AsyncIterator[EngineClient]:
    async with opened(Engine.POSTGRESQL, connection(POSTGRESQL, postgresql)) as client:
        await ask(client, "DROP TABLE IF EXISTS plan2_pg")
        await ask(client, "CREATE TABLE plan2_pg (id int PRIMARY KEY, name text UNIQUE)")
        yield client


async def ask(client: EngineClient, text: str, *params: Any, **options: Any) -> Result:
    return await run(client, Query(query=text, params=list(params), **options))


@pytest.mark.parametrize("type_name", VALUES)
async def test_a_value_is_encoded_as_to_json_does_whichever_way_it_travels(
    client: EngineClient, type_name: str
) -> None:
    table = "plan2_values"
    await ask(client, f"DROP TABLE IF EXISTS {table}")
    await ask(client, f"CREATE TABLE {table} (v {type_name})")
    await ask(client, f"INSERT INTO {table} VALUES ('{VALUES[type_name]}')")
    expected = await ask(client, f"SELECT to_json(v)::text AS v FROM {table}")

    selected = await ask(client, f"SELECT v FROM {table}")
    returned = await ask(client, f"UPDATE {table} SET v = v RETURNING v")
    fetched = await ask(
        client, f"WITH changed AS (UPDATE {table} SET v = v RETURNING v) SELECT v FROM changed"
    )

    wanted = "".join(plain(expected)[0]["v"].split())
    for result in (selected, returned, fetched):
        text = ENCODER.encode(result.data).decode()
        got = re.fullmatch(r'\[\{"v":(.*)\}\]', text, re.DOTALL)
        assert got is not None
        assert "".join(got[1].split()) == wanted


@pytest.mark.parametrize("type_name", sorted(VALUES.keys() - {"int4range"}))
async def test_a_parameter_may_be_a_string_in_postgresqls_own_form(
    client: EngineClient, type_name: str
) -> None:
    value = AS_JSON.get(type_name, VALUES[type_name])
    expected = await ask(client, f"SELECT '{VALUES[type_name]}'::{type_name} AS v")

    result = await ask(client, f"SELECT $1::{type_name} AS v", value)

    assert plain(result) == plain(expected)


async def test_parameters_keep_what_json_says(client: EngineClient) -> None:
    result = await ask(
        client,
        "SELECT $1::int + 1 AS i, $2::numeric AS n, $3::jsonb AS j, $4::timestamptz AS t, "
        "$5::bytea AS b, $6::int[] AS a, $7::interval AS v",
        41,
        "1.500",
        {"a": [1, "x"]},
        "2024-01-01",
        {"$base64": "AP8="},
        [1, "2"],
        "90 minutes",
    )

    text = ENCODER.encode(result.data).decode()
    assert '"n":1.500' in text
    row = plain(result)[0]
    assert row["i"] == 42
    assert row["j"] == {"a": [1, "x"]}
    assert row["t"] == "2024-01-01T00:00:00+00:00"
    assert row["b"] == "\\x00ff"
    assert row["a"] == [1, 2]
    assert row["v"] == "01:30:00"


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("SELECT $1::int", []),
        ("SELECT 1", [1]),
        ("SELECT $1::int", ["abc"]),
        ("SELECT $1::int", [1.5]),
        ("SELECT $1::text", [5]),
        ("SELECT $1::bool", ["maybe"]),
        ("SELECT $1::uuid", ["x"]),
    ],
    ids=str,
)
async def test_a_parameter_that_does_not_fit_is_the_callers(
    client: EngineClient, text: str, params: list[Any]
) -> None:
    with pytest.raises(ParameterMismatch):
        await ask(client, text, *params)


@pytest.mark.parametrize("text", ["SELECT 1\0", "SELECT 1\0; x"], ids=["end", "middle"])
async def test_a_statement_that_postgresql_would_cut_off_is_never_sent(
    client: EngineClient, text: str
) -> None:
    with pytest.raises(InvalidRequest, match="NUL"):
        await ask(client, text)


@pytest.mark.parametrize("digits", ["12345678901234567890.123456789", "0.10000000000000000001"])
async def test_a_number_among_the_parameters_keeps_all_its_digits(
    client: EngineClient, digits: str
) -> None:
    text = (
        f'{{"query": "SELECT $1::numeric AS n, $2::json AS j", "params": [{digits}, [{digits}]]}}'
    )
    asked = wire.decode(wire.QUERY_REQUEST, text.encode())

    result = await run(client, Query(query=asked.query, params=asked.params))

    assert ENCODER.encode(result.data).decode().count(digits) == 2


async def test_params_must_be_a_list(client: EngineClient) -> None:
    with pytest.raises(ParameterMismatch):
        await run(client, Query(query="SELECT 1", params={"a": 1}))


@pytest.mark.parametrize("text", ["", "  \n", [], {"a": 1}], ids=repr)
async def test_only_text_is_a_statement(client: EngineClient, text: Any) -> None:
    with pytest.raises(InvalidRequest):
        await run(client, Query(query=text))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("SELECT 1 AS a;", [{"a": 1}]),
        ("SELECT 1 AS a -- the end", [{"a": 1}]),
        ("/* first */ SELECT 1 AS a /* last */", [{"a": 1}]),
        ("(SELECT 1 AS a)", [{"a": 1}]),
        ("SELECT 1 AS plan2_row, 2 AS plan2_query", [{"plan2_row": 1, "plan2_query": 2}]),
        ("VALUES (1, 'x')", [{"column1": 1, "column2": "x"}]),
        ("WITH a AS (SELECT 2 AS n) SELECT n FROM a", [{"n": 2}]),
        ("SELECT 1 AS a WHERE false", []),
        ("SHOW TimeZone", [{"TimeZone": "UTC"}]),
        ("SELECT ROW(1, 'x') AS r", [{"r": {"f1": 1, "f2": "x"}}]),
    ],
    ids=str,
)
async def test_rows_are_objects(client: EngineClient, text: str, rows: list[Any]) -> None:
    result = await ask(client, text)

    assert plain(result) == rows
    assert result.row_count == len(rows)


async def test_rows_keep_their_order(client: EngineClient) -> None:
    result = await ask(client, "SELECT n FROM generate_series(1, 1000) n ORDER BY n DESC")

    assert [row["n"] for row in plain(result)] == list(range(1000, 0, -1))


async def test_a_write_counts_the_rows_it_affected(client: EngineClient) -> None:
    inserted = await ask(
        client, "INSERT INTO plan2_pg SELECT n, n::text FROM generate_series(1,3) n"
    )
    updated = await ask(client, "UPDATE plan2_pg SET name = name || '!' WHERE id < $1", 3)
    returned = await ask(client, "DELETE FROM plan2_pg RETURNING id", max_rows=2)
    made = await ask(client, "CREATE INDEX ON plan2_pg (name)")

    assert (plain(inserted), inserted.row_count) == ([], 3)
    assert (plain(updated), updated.row_count) == ([], 2)
    assert (returned.row_count, returned.truncated) == (2, True)
    assert plain(await ask(client, "SELECT count(*) AS n FROM plan2_pg")) == [{"n": 0}]
    assert made.row_count == 0


async def test_a_with_that_writes_runs_once(client: EngineClient) -> None:
    text = "WITH made AS (INSERT INTO plan2_pg VALUES (1, 'x') RETURNING id) SELECT id FROM made"

    result = await ask(client, text)

    assert plain(result) == [{"id": 1}]


@pytest.mark.parametrize(
    ("text", "problem", "code"),
    [
        ("SELECT 1; SELECT 2", MultipleStatements, "42601"),
        ("SELECT 1 AS a, 2 AS a", QueryRejected, None),
        ("SELECT * FROM nowhere", QueryRejected, "42P01"),
        ("SELECT 1/0", QueryRejected, "22012"),
        ("SELECT 1) x; DROP TABLE plan2_pg --", QueryRejected, "42601"),
        ("INSERT INTO plan2_pg VALUES (1,'a'), (1,'b')", Conflict, "23505"),
        ("INSERT INTO plan2_pg VALUES (NULL)", QueryRejected, "23502"),
        ("BEGIN", QueryRejected, None),
        ("LISTEN x", QueryRejected, None),
        ("COPY plan2_pg TO STDOUT", QueryRejected, None),
        ("DO $$ BEGIN RAISE serialization_failure; END $$", Conflict, "40001"),
        ("DO $$ BEGIN RAISE disk_full; END $$", StoreFull, "53100"),
        ("DO $$ BEGIN RAISE insufficient_privilege; END $$", PermissionDenied, "42501"),
    ],
    ids=str,
)
async def test_what_the_server_refuses_has_its_own_problem(
    client: EngineClient, text: str, problem: type[Exception], code: str | None
) -> None:
    with pytest.raises(problem) as refused:
        await ask(client, text)

    assert type(refused.value) is problem
    assert refused.value.engine_code == code
    assert plain(await ask(client, "SELECT 1 AS a")) == [{"a": 1}]


async def test_only_lost_races_are_retryable_conflicts(client: EngineClient) -> None:
    with pytest.raises(Conflict) as race:
        await ask(client, "DO $$ BEGIN RAISE deadlock_detected; END $$")
    with pytest.raises(Conflict) as taken:
        await ask(client, "DO $$ BEGIN RAISE unique_violation; END $$")

    assert race.value.retryable is True
    assert taken.value.retryable is None


async def test_the_server_ends_what_a_lost_cancel_left_behind(client: EngineClient) -> None:
    await ask(client, "SET statement_timeout = 0")

    limit = await ask(client, "SHOW statement_timeout")

    assert plain(limit) == [{"statement_timeout": "65s"}]


@pytest.mark.parametrize(
    "text",
    [
        "SET TimeZone = 'Asia/Tokyo'",
        "SELECT set_config('TimeZone', 'Asia/Tokyo', false)",
        """SELECT "set_config"('TimeZone', 'Asia/Tokyo', false)""",
        "SET ROLE pg_monitor",
        "CREATE TEMP TABLE plan2_left (a int)",
        "SELECT pg_advisory_lock(42)",
    ],
)
async def test_a_session_is_handed_on_clean(postgresql: EngineServer, text: str) -> None:
    alone = connection(POSTGRESQL, postgresql)
    assert isinstance(alone, Sql)
    alone = Sql(host=alone.host, port=alone.port, database="app", rw=alone.rw, pool_max=1)
    async with opened(Engine.POSTGRESQL, alone) as client:
        before = plain(await ask(client, "SELECT pg_backend_pid() AS pid"))

        await ask(client, text)

        assert plain(await ask(client, "SHOW TimeZone")) == [{"TimeZone": "UTC"}]
        after = await ask(
            client,
            "SELECT pg_backend_pid() AS pid, current_user::text AS who, "
            "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS locks, "
            "to_regclass('plan2_left') IS NULL AS gone",
        )
        assert plain(after) == [{**before[0], "who": "postgres", "locks": 0, "gone": True}]


async def test_a_table_changed_by_another_session_is_seen(
    client: EngineClient, postgresql: EngineServer
) -> None:
    await ask(client, "INSERT INTO plan2_pg VALUES (1, 'x')")
    await ask(client, "SELECT * FROM plan2_pg")
    other = await asyncpg.connect(postgresql.url)
    await other.execute("ALTER TABLE plan2_pg ADD COLUMN more int DEFAULT 5")
    await other.close()

    result = await ask(client, "SELECT * FROM plan2_pg")

    assert plain(result) == [{"id": 1, "name": "x", "more": 5}]


async def test_a_deadline_stops_the_servers_work(
    client: EngineClient, postgresql: EngineServer
) -> None:
    with pytest.raises(DeadlineExceeded):
        await run(client, Query(query="SELECT pg_sleep(30), 'plan2-slow'"), seconds=0.2)

    assert await _none_running(postgresql, "plan2-slow")


async def test_a_caller_who_goes_away_stops_the_servers_work(
    client: EngineClient, postgresql: EngineServer
) -> None:
    call = asyncio.create_task(run(client, Query(query="SELECT pg_sleep(30), 'plan2-gone'")))
    await asyncio.sleep(0.2)

    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    assert await _none_running(postgresql, "plan2-gone")


async def test_reads_use_the_read_only_role(client: EngineClient, postgresql: EngineServer) -> None:
    await ask(client, "DROP ROLE IF EXISTS plan2_reader")
    await ask(client, "CREATE ROLE plan2_reader LOGIN PASSWORD 'reader'")
    whole = connection(POSTGRESQL, postgresql)
    assert isinstance(whole, Sql)
    reader = Login(username="plan2_reader", password="reader")
    both = Sql(host=whole.host, port=whole.port, database="app", rw=whole.rw, ro=reader, pool_max=1)

    async with opened(Engine.POSTGRESQL, both) as two:
        reads = await ask(two, "SELECT current_user::text AS who", read_only=True)
        writes = await ask(two, "SELECT current_user::text AS who")

        assert plain(reads) == [{"who": "plan2_reader"}]
        assert plain(writes) == [{"who": "postgres"}]
        with pytest.raises(ReadOnly):
            await ask(two, "CREATE TABLE plan2_never (a int)", read_only=True)
        with pytest.raises(PermissionDenied):
            await ask(two, "SELECT * FROM plan2_pg", read_only=True)
    await ask(client, "DROP ROLE plan2_reader")


@pytest.mark.parametrize("text", ["COMMIT", "SET TRANSACTION READ WRITE"])
async def test_nothing_leads_out_of_a_read_only_call(client: EngineClient, text: str) -> None:
    with contextlib.suppress(QueryRejected):
        await ask(client, text, read_only=True)

    with pytest.raises(ReadOnly):
        await ask(client, "INSERT INTO plan2_pg VALUES (7, 'x')", read_only=True)


CLASSES = sorted(
    {
        kind
        for name in dir(asyncpg.exceptions)
        if isinstance(kind := getattr(asyncpg.exceptions, name), type)
        and issubclass(kind, Exception)
        and not issubclass(kind, Warning)
        and kind.__module__.startswith("asyncpg")
    },
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_of_the_driver_is_mapped(kind: type[Exception]) -> None:
    error = kind("said")

    problem = translate(error)

    assert problem is not None
    assert type(problem) in ERRORS.values()
    state = getattr(error, "sqlstate", None) or ""
    expected = {
        "08": EngineUnavailable,
        "23": QueryRejected,
        "28": EngineAuthFailed,
        "40": QueryRejected,
        "42": QueryRejected,
        "53": (EngineUnavailable, StoreFull),
        "57": (EngineUnavailable, DeadlineExceeded),
        "58": EngineUnavailable,
        "XX": EngineUnavailable,
    }.get(state[:2], Exception)
    assert isinstance(problem, expected)


async def _none_running(server: EngineServer, mark: str) -> bool:
    watcher = await asyncpg.connect(server.url)
    deadline = Deadline.after(5)
    try:
        while await watcher.fetchval(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE state = 'active' AND query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid()",
            mark,
        ):
            deadline.remaining()
            await asyncio.sleep(0.02)
        return True
    finally:
        await watcher.close()
