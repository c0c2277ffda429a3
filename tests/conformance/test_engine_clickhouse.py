"""ClickHouse's own promises: parameters, numbers with all digits, errors wherever they stand."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import clickhouse_connect
import pytest
from aiohttp import web

from conformance.engine_cases import CLICKHOUSE, ENCODER, connection, opened, plain, run
from conformance.http_recorder import recording
from fixtures.fix_engines import EngineServer
from plan2_contract.connection import Login, Sql
from plan2_contract.engines import Engine
from plan2_sidecar.engines import EngineClient
from plan2_sidecar.engines.clickhouse_errors import in_body, in_reply
from plan2_sidecar.engines.http import Reply
from plan2_sidecar.errors import (
    ConnectionLost,
    DeadlineExceeded,
    EngineAuthFailed,
    EngineUnavailable,
    MultipleStatements,
    ParameterMismatch,
    PermissionDenied,
    QueryRejected,
    ReadOnly,
    StoreFull,
)
from plan2_sidecar.query import Query, Result

LOGIN = Login(username="somebody", password="secret")


@pytest.fixture
async def client(clickhouse: EngineServer) -> AsyncIterator[EngineClient]:
    async with opened(Engine.CLICKHOUSE, connection(CLICKHOUSE, clickhouse)) as client:
        yield client


async def ask(client: EngineClient, text: str, **params: Any) -> Result:
    return await run(client, Query(query=text, params=params))


def only(port: int) -> Sql:
    return Sql(host="127.0.0.1", port=port, database="default", rw=LOGIN, pool_max=3)


async def test_numbers_keep_all_their_digits(client: EngineClient) -> None:
    result = await ask(
        client,
        "SELECT 18446744073709551615 AS big, toDecimal64('1234567890.12345', 5) AS exact, "
        "nan AS no_number, toDateTime('2024-02-29 01:02:03', 'UTC') AS at, NULL AS nothing",
    )

    text = ENCODER.encode(result.data).decode()
    assert '"big":18446744073709551615' in text
    assert '"exact":1234567890.12345' in text
    assert plain(result)[0]["no_number"] == "nan"
    assert plain(result)[0]["at"] == "2024-02-29T01:02:03Z"
    assert plain(result)[0]["nothing"] is None


@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("String", "it's \\ a\ttab,\na line, {x:y} ü"),
        ("UInt64", 18446744073709551615),
        ("Float64", 0.1),
        ("Bool", True),
        ("Nullable(String)", None),
        ("Array(String)", ["it's", "b\\", "c\nd"]),
        ("Array(UInt8)", [1, 2]),
        ("Map(String, UInt8)", {"a'b": 1}),
        ("Date", "2024-02-29"),
    ],
)
async def test_a_parameter_arrives_as_it_was_sent(
    client: EngineClient, type_name: str, value: Any
) -> None:
    result = await ask(client, f"SELECT {{v:{type_name}}} AS v", v=value)

    assert plain(result) == [{"v": value}]


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("SELECT {a:UInt8}", {}),
        ("SELECT {a:UInt8}", {"a": 1, "b": 2}),
        ("SELECT {a:UInt8}", {"a": "x"}),
        ("SELECT '{a:UInt8}'", {"a": 1}),
    ],
)
async def test_a_parameter_that_does_not_fit_is_the_callers(
    client: EngineClient, text: str, params: dict[str, Any]
) -> None:
    with pytest.raises(ParameterMismatch):
        await ask(client, text, **params)


async def test_a_write_counts_its_rows_and_the_driver_reads_the_same(
    client: EngineClient, clickhouse: EngineServer
) -> None:
    await ask(client, "DROP TABLE IF EXISTS plan2_own")
    await ask(
        client,
        "CREATE TABLE plan2_own (id UInt64, name String, price Decimal(10, 2)) "
        "ENGINE = MergeTree ORDER BY id",
    )

    inserted = await ask(
        client, "INSERT INTO plan2_own SELECT number, toString(number), 1.50 FROM numbers(3)"
    )
    await ask(client, "INSERT INTO plan2_own VALUES (9, 'it''s; fine', 2.25)")

    assert inserted.row_count == 3
    oracle = await clickhouse_connect.get_async_client(
        host=clickhouse.host,
        port=clickhouse.port,
        username=clickhouse.admin_user,
        password=clickhouse.admin_password,
    )
    try:
        rows = (await oracle.query("SELECT * FROM plan2_own ORDER BY id")).result_rows
    finally:
        await oracle.close()
    ours = await ask(client, "SELECT * FROM plan2_own ORDER BY id")
    assert [(row["id"], row["name"]) for row in plain(ours)] == [row[:2] for row in rows]
    assert [row["price"] for row in plain(ours)] == [float(row[2]) for row in rows]


@pytest.mark.parametrize(
    ("text", "problem", "code"),
    [
        ("SELECT 1; SELECT 2", MultipleStatements, None),
        ("SELECT nothing_called_so", QueryRejected, "47"),
        ("SELECT * FROM nowhere", QueryRejected, "60"),
        ("SELECT 1 FORMAT CSV", QueryRejected, None),
        ("SELECT throwIf(number = 3) FROM numbers(5)", QueryRejected, "395"),
    ],
)
async def test_what_the_server_refuses_has_its_own_problem(
    client: EngineClient, text: str, problem: type[Exception], code: str | None
) -> None:
    with pytest.raises(problem) as refused:
        await ask(client, text)

    assert type(refused.value) is problem
    assert refused.value.engine_code == code
    assert "(version" not in refused.value.detail


@pytest.mark.parametrize("text", ["SELECT 1 AS a;", "SELECT 1 AS a -- ; SELECT 2", "SELECT 1 AS a"])
async def test_one_statement_may_end_as_it_likes(client: EngineClient, text: str) -> None:
    assert plain(await ask(client, text)) == [{"a": 1}]


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (159, DeadlineExceeded),
        (164, ReadOnly),
        (202, EngineUnavailable),
        (209, ConnectionLost),
        (210, ConnectionLost),
        (319, ConnectionLost),
        (243, StoreFull),
        (252, StoreFull),
        (457, ParameterMismatch),
        (497, PermissionDenied),
        (516, EngineAuthFailed),
        (60, QueryRejected),
        (241, QueryRejected),
    ],
)
def test_a_code_has_its_problem(code: int, problem: type[Exception]) -> None:
    said = f"Code: {code}. DB::Exception: Something. (NAME) (version 26.3.1.1 (official build))\n"

    found = in_reply(Reply(500, {}, said.encode()))

    assert type(found) is problem
    assert found is not None
    assert found.detail == "Something. (NAME)"
    assert found.engine_code == str(code)


def test_a_gateways_error_page_is_an_unavailable_engine() -> None:
    assert isinstance(in_reply(Reply(502, {}, b"<html>Bad Gateway")), EngineUnavailable)


@pytest.mark.parametrize(
    "end",
    [
        b"Code: 395. DB::Exception: Late. (LATE) (version 24.1.1.1 (official build))\n",
        b"\r\n__exception__\r\nabcdefgh\r\n"
        b"Code: 395. DB::Exception: Late. (LATE) (version 26.3.1.1 (official build))\n"
        b"77 abcdefgh\r\n__exception__\r\n",
    ],
)
def test_an_error_after_status_200_is_found_at_the_end(end: bytes) -> None:
    problem = in_body(Reply(200, {}, b'{"a":1}\n{"a":2}\n' + end))

    assert isinstance(problem, QueryRejected)
    assert problem.engine_code == "395"
    assert problem.detail.startswith("Late.")


@pytest.mark.parametrize("word", [b"", b"__exception__ "])
def test_rows_that_speak_of_errors_are_rows(word: bytes) -> None:
    row = b'{"log":"' + word + b'Code: 395. DB::Exception: Late. (LATE)"}\n'

    assert in_body(Reply(200, {}, row)) is None


def test_the_servers_memory_is_not_the_statements_fault() -> None:
    said = "Code: 241. DB::Exception: (total) memory limit exceeded: … (MEMORY_LIMIT_EXCEEDED)"

    assert isinstance(in_reply(Reply(500, {}, said.encode())), EngineUnavailable)


@pytest.mark.parametrize(
    ("named", "problem"), [("default", EngineUnavailable), ("other", QueryRejected)]
)
async def test_only_our_own_missing_database_is_an_unavailable_engine(
    named: str, problem: type[Exception]
) -> None:
    said = f"Code: 81. DB::Exception: Database {named} does not exist. (UNKNOWN_DATABASE)"

    async def answer(request: web.Request, body: str) -> web.StreamResponse:
        return web.Response(status=404, text=said)

    async with recording(answer) as server, opened(Engine.CLICKHOUSE, only(server.port)) as client:
        with pytest.raises(problem):
            await run(client, Query(query="SELECT 1"))


async def test_a_caller_who_goes_away_has_the_query_killed() -> None:
    async def answer(request: web.Request, body: str) -> web.StreamResponse:
        if not body.startswith("KILL"):
            await asyncio.sleep(30)
        return web.Response()

    async with recording(answer) as server, opened(Engine.CLICKHOUSE, only(server.port)) as client:
        call = asyncio.create_task(run(client, Query(query="SELECT sleep(30)")))
        _, asked, _ = await server.asked_for("SELECT sleep(30)")
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        _, killed, statement = await server.asked_for("KILL QUERY")

    query_id = parse_qs(urlsplit(asked).query)["query_id"][0]
    assert parse_qs(urlsplit(killed).query)["param_id"] == [query_id]
    assert statement == "KILL QUERY WHERE query_id = {id:String} ASYNC"


async def test_a_deadline_goes_down_to_the_server_and_kills_the_query() -> None:
    async def answer(request: web.Request, body: str) -> web.StreamResponse:
        if not body.startswith("KILL"):
            await asyncio.sleep(30)
        return web.Response()

    async with recording(answer) as server, opened(Engine.CLICKHOUSE, only(server.port)) as client:
        with pytest.raises(DeadlineExceeded):
            await run(client, Query(query="SELECT 1"), seconds=0.2)
        await server.asked_for("KILL QUERY")
        _, asked, _ = server.asked[0]

    assert parse_qs(urlsplit(asked).query)["max_execution_time"] == ["1"]


@pytest.mark.parametrize(
    ("query", "settings"),
    [
        (
            Query(query="INSERT INTO t VALUES (1)", max_rows=5),
            {"async_insert": "1", "wait_for_async_insert": "1", "limit": None, "readonly": None},
        ),
        (
            Query(query="SELECT 1", max_rows=5, read_only=True),
            {"limit": "6", "readonly": "2", "async_insert": None},
        ),
        (
            Query(query="SELECT 1"),
            {
                "output_format_json_quote_64bit_integers": "0",
                "output_format_json_quote_denormals": "1",
                "date_time_output_format": "iso",
                "output_format_json_validate_utf8": "1",
            },
        ),
    ],
    ids=["insert", "read-only", "select"],
)
async def test_the_settings_of_a_call(query: Query, settings: dict[str, str | None]) -> None:
    async def answer(request: web.Request, body: str) -> web.StreamResponse:
        assert request.headers["X-ClickHouse-User"] == LOGIN.username
        assert request.headers["X-ClickHouse-Key"] == LOGIN.password
        return web.Response()

    async with recording(answer) as server, opened(Engine.CLICKHOUSE, only(server.port)) as client:
        await run(client, query)

    _, asked, _ = server.asked[0]
    sent = parse_qs(urlsplit(asked).query)
    assert {name: sent.get(name, [None])[0] for name in settings} == settings
    assert re.fullmatch(r"plan2-[0-9a-f-]{36}", sent["query_id"][0])
    assert LOGIN.password not in asked
