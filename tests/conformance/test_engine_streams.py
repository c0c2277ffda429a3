"""Engines' streams on a server that is watched: what is asked, and what is given up."""

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from conformance.engine_cases import opened
from conformance.http_recorder import recording
from plan2_contract.connection import Login, Sql
from plan2_contract.engines import Engine
from plan2_sidecar import engines
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import DeadlineExceeded, QueryRejected
from plan2_sidecar.query import Form, Query

ROWS = b'{"n":1}\n' * 20_000


def sql(port: int) -> Sql:
    return Sql(
        host="127.0.0.1",
        port=port,
        database="app",
        rw=Login(username="app", password="secret"),
        pool_max=2,
    )


def started(client: Any, text: str, seconds: float = 10.0) -> Any:
    return engines.opened(client).stream(Query(query=text), Deadline.after(seconds), Form.NDJSON)


async def drained(stream: Any) -> None:
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            assert b"Code" not in chunk.whole()


async def endless(request: web.Request, body: str) -> web.StreamResponse:
    if "KILL QUERY" in body:
        return web.Response()
    response = web.StreamResponse(headers={"X-ClickHouse-Format": "JSONEachRow"})
    await response.prepare(request)
    while True:
        await response.write(ROWS)
        await asyncio.sleep(0.01)


async def test_a_clickhouse_stream_given_up_is_killed_on_the_server() -> None:
    async with (
        recording(endless) as server,
        opened(Engine.CLICKHOUSE, sql(server.port)) as client,
    ):
        async with aclosing(started(client, "SELECT n FROM t")) as chunks:
            first = (await anext(chunks)).whole()
        killed = await server.asked_for("KILL QUERY")

    assert first == ROWS[: len(first)]
    asked = server.asked[0][1].partition("query_id=")[2].partition("&")[0]
    assert f"param_id={asked}" in killed[1]
    assert client.pool()["inUse"] == 0


async def test_a_clickhouse_stream_ends_at_the_deadline() -> None:
    async with (
        recording(endless) as server,
        opened(Engine.CLICKHOUSE, sql(server.port)) as client,
    ):
        with pytest.raises(DeadlineExceeded):
            await drained(started(client, "SELECT n FROM t", 0.3))
        await server.asked_for("KILL QUERY")


async def test_a_message_behind_clickhouses_rows_is_raised() -> None:
    async def failing(request: web.Request, body: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(ROWS + b"Code: 241. DB::Exception: Memory limit exceeded (X)\n")
        return response

    async with (
        recording(failing) as server,
        opened(Engine.CLICKHOUSE, sql(server.port)) as client,
    ):
        with pytest.raises(QueryRejected, match="Memory limit"):
            await drained(started(client, "SELECT n FROM t"))


async def test_an_arangodb_stream_given_up_frees_its_cursor() -> None:
    async def batches(request: web.Request, body: str) -> web.Response:
        more = {"result": [1, 2], "hasMore": True, "id": "c/1"}
        return web.json_response(more, status=201)

    async with (
        recording(batches) as server,
        opened(Engine.ARANGODB, sql(server.port)) as client,
        aclosing(started(client, "FOR n IN 1..9 RETURN n")) as chunks,
    ):
        assert [(await anext(chunks)).data for _ in range(3)] == [b"1\n2\n"] * 3

    # Closing the client waited for what it still had to say.
    methods = [(method, path) for method, path, _ in server.asked]
    assert methods == [
        ("POST", "/_db/app/_api/cursor"),
        ("POST", "/_db/app/_api/cursor/c%2F1"),
        ("POST", "/_db/app/_api/cursor/c%2F1"),
        ("DELETE", "/_db/app/_api/cursor/c%2F1"),
    ]
    asked = json.loads(server.asked[0][2])
    assert asked["options"]["stream"] is True
    assert "count" not in asked
