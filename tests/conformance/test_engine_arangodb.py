"""ArangoDB's own promises: bind variables, errors by number, nothing left on the server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from arangoasync import ArangoClient
from arangoasync.auth import Auth

from conformance.engine_cases import ARANGODB, connection, opened, plain, run
from conformance.http_recorder import recording
from fixtures.fix_engines import EngineServer
from plan2_contract.connection import Login, Sql
from plan2_contract.engines import Engine
from plan2_sidecar.engines import EngineClient
from plan2_sidecar.engines.arangodb_errors import in_reply
from plan2_sidecar.engines.http import Reply
from plan2_sidecar.errors import (
    Conflict,
    DeadlineExceeded,
    EngineAuthFailed,
    EngineUnavailable,
    ParameterMismatch,
    PermissionDenied,
    QueryRejected,
    ReadOnly,
    StoreFull,
)
from plan2_sidecar.query import Query, Result

LOGIN = Login(username="somebody", password="secret")


@pytest.fixture
async def client(arangodb: EngineServer) -> AsyncIterator[EngineClient]:
    async with opened(Engine.ARANGODB, connection(ARANGODB, arangodb)) as client:
        yield client


async def ask(client: EngineClient, text: str, **params: Any) -> Result:
    return await run(client, Query(query=text, params=params))


@asynccontextmanager
async def own_collection(server: EngineServer) -> AsyncIterator[Any]:
    """An empty collection `plan2_own`, through the vendor's driver."""
    auth = Auth(username=server.admin_user, password=server.admin_password)
    async with ArangoClient(hosts=server.url) as oracle:
        database = await oracle.db("_system", auth_method="jwt", auth=auth)
        yield await database.create_collection("plan2_own")
        await database.delete_collection("plan2_own")


def only(port: int) -> Sql:
    return Sql(host="127.0.0.1", port=port, database="shop/eu", rw=LOGIN, pool_max=3)


@pytest.mark.parametrize(
    "value",
    ["it's \" \\ \n ü", 9007199254740993, 0.1, True, None, [1, "a"], {"a": {"b": []}}],
    ids=repr,
)
async def test_a_parameter_arrives_as_it_was_sent(client: EngineClient, value: Any) -> None:
    assert plain(await ask(client, "RETURN @v", v=value)) == [value]


async def test_a_number_with_more_digits_than_a_double_has_is_a_number_still(
    client: EngineClient,
) -> None:
    result = await ask(client, "RETURN @value", value=Decimal("0.10000000000000000001"))

    assert plain(result) == [0.1]


async def test_a_value_is_never_read_as_aql(client: EngineClient) -> None:
    hostile = "x' REMOVE '1' IN plan2_case //"

    assert plain(await ask(client, "RETURN @v", v=hostile)) == [hostile]


async def test_rows_may_be_scalars_and_come_in_batches(client: EngineClient) -> None:
    result = await ask(client, "FOR i IN 1..25000 RETURN i")

    assert result.row_count == 25000
    assert plain(result) == list(range(1, 25001))


async def test_the_driver_reads_what_was_written(
    client: EngineClient, arangodb: EngineServer
) -> None:
    async with own_collection(arangodb) as collection:
        written = await ask(client, "INSERT {_key: 'k', n: @n} INTO plan2_own RETURN NEW", n=7)

        document = await collection.get("k")

    assert document is not None
    assert plain(written)[0]["_id"] == document["_id"]
    assert document["n"] == 7


async def test_a_write_counts_its_documents(client: EngineClient, arangodb: EngineServer) -> None:
    async with own_collection(arangodb):
        result = await ask(client, "FOR i IN 1..3 INSERT {n: i} INTO plan2_own")

    assert (plain(result), result.row_count) == ([], 3)


@pytest.mark.parametrize(
    "text",
    [
        "FOR d IN c REMOVE d IN c",
        "insert {} into c",
        "FOR d IN c UPDATE d WITH {} IN c",
        "/* read */ UPSERT {} INSERT {} UPDATE {} IN c",
        "RETURN 'a' // RETURN\nREPLACE {} IN c",
        "FOR `d\\`` IN c INSERT {} INTO c //`",
        "FOR i IN 1..2INSERT {i} INTO c",
    ],
)
async def test_a_query_that_writes_is_no_read(client: EngineClient, text: str) -> None:
    with pytest.raises(ReadOnly):
        await run(client, Query(query=text, read_only=True))


@pytest.mark.parametrize(
    "text",
    [
        "RETURN 'INSERT'",
        "RETURN 1 // REMOVE it",
        "RETURN @insert",
        "RETURN {a: 1}.update",
        "LET a2insert = 1 RETURN a2insert",
    ],
)
async def test_a_query_that_only_names_a_write_is_a_read(client: EngineClient, text: str) -> None:
    params = {"insert": 1} if "@insert" in text else {}

    result = await run(client, Query(query=text, params=params, read_only=True))

    assert result.row_count == 1


@pytest.mark.parametrize(
    ("status", "number", "problem", "retryable"),
    [
        (401, 11, EngineAuthFailed, True),
        (403, 11, PermissionDenied, None),
        (403, 1004, ReadOnly, None),
        (400, 1501, QueryRejected, None),
        (400, 1551, ParameterMismatch, None),
        (404, 1203, QueryRejected, None),
        (404, 1228, EngineUnavailable, True),
        (409, 1210, Conflict, None),
        (409, 1200, Conflict, True),
        (410, 1500, DeadlineExceeded, None),
        (500, 32, QueryRejected, None),
        (503, 30, EngineUnavailable, True),
        (507, 1104, StoreFull, True),
    ],
)
def test_an_error_number_has_its_problem(
    status: int, number: int, problem: type[Exception], retryable: bool | None
) -> None:
    said = {"error": True, "code": status, "errorNum": number, "errorMessage": "so"}

    found = in_reply(Reply(status, {}, json.dumps(said).encode()))

    assert type(found) is problem
    assert found is not None
    assert (found.detail, found.engine_code, found.retryable) == ("so", str(number), retryable)


def test_a_gateways_error_page_is_an_unavailable_engine() -> None:
    assert isinstance(in_reply(Reply(502, {}, b"<html>Bad Gateway")), EngineUnavailable)


async def test_a_caller_who_goes_away_has_the_query_killed() -> None:
    sent: list[str] = []

    async def answer(request: web.Request, body: str) -> web.StreamResponse:
        if request.path.endswith("/_api/cursor"):
            sent.append(json.loads(body)["query"])
            await asyncio.sleep(30)
        if request.path.endswith("/_api/query/current"):
            others = {"id": "6", "query": "RETURN SLEEP(30)"}
            return web.json_response([others, {"id": "7", "query": sent[0]}])
        return web.json_response({})

    async with recording(answer) as server, opened(Engine.ARANGODB, only(server.port)) as client:
        call = asyncio.create_task(run(client, Query(query="RETURN SLEEP(30)")))
        _, path, body = await server.asked_for("/_api/cursor")
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        method, killed, _ = await server.asked_for("/_api/query/7")

    assert path.startswith("/_db/shop%2Feu/")
    assert (method, killed) == ("DELETE", "/_db/shop%2Feu/_api/query/7")
    assert not [each for each in server.asked if each[1].endswith("/query/6")]
    assert 0 < json.loads(body)["options"]["maxRuntime"] < 10


async def test_rows_that_are_left_out_are_freed_on_the_server() -> None:
    async def answer(request: web.Request, body: str) -> web.StreamResponse:
        if request.method == "DELETE":
            return web.json_response({}, status=202)
        return web.json_response(
            {"result": [1, 2, 3], "hasMore": True, "id": "42", "count": 9}, status=201
        )

    async with recording(answer) as server, opened(Engine.ARANGODB, only(server.port)) as client:
        result = await run(client, Query(query="RETURN 1", max_rows=2))
        method, _, _ = await server.asked_for("/_api/cursor/42")

    assert (plain(result), result.truncated) == ([1, 2], True)
    assert method == "DELETE"


async def test_the_deadline_goes_down_to_the_server(client: EngineClient) -> None:
    with pytest.raises(DeadlineExceeded):
        await run(client, Query(query="RETURN SLEEP(20)"), seconds=0.3)
