"""Weaviate's own promises: searches as objects, GraphQL passed on, names that stay names."""

import warnings
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from conformance.engine_cases import WEAVIATE, connection, opened, plain, run
from conformance.http_recorder import recording
from fixtures.fix_engines import EngineServer
from plan2_contract.connection import Weaviate
from plan2_contract.engines import Engine
from plan2_sidecar.engines import EngineClient
from plan2_sidecar.errors import (
    EngineAuthFailed,
    EngineUnavailable,
    InvalidRequest,
    ParameterMismatch,
    PermissionDenied,
    Problem,
    QueryRejected,
)
from plan2_sidecar.query import Query, Result

IDS = [f"00000000-0000-4000-8000-0000000000{n:02}" for n in range(1, 4)]
TITLES = ["red apple", "green apple", 'a "quoted" { pear }']


@pytest.fixture
async def client(weaviate: EngineServer) -> AsyncIterator[EngineClient]:
    headers = {"Authorization": f"Bearer {weaviate.admin_password}"}
    properties = [
        {"name": "title", "dataType": ["text"]},
        {"name": "price", "dataType": ["number"]},
        {"name": "tags", "dataType": ["text[]"]},
    ]
    made = {"class": "PlanOwn", "vectorizer": "none", "properties": properties}
    async with aiohttp.ClientSession(weaviate.url, headers=headers) as session:
        await session.delete("/v1/schema/PlanOwn")
        assert (await session.post("/v1/schema", json=made)).status == 200
    async with opened(Engine.WEAVIATE, connection(WEAVIATE, weaviate)) as client:
        objects = [
            {"id": IDS[n], "vector": [1, n], "title": TITLES[n], "price": n + 0.5, "tags": ["x"]}
            for n in range(3)
        ]
        await ask(client, objects=objects)
        yield client


async def ask(client: EngineClient, *, max_rows: int | None = None, **form: Any) -> Result:
    return await run(client, Query(query={"collection": "PlanOwn", **form}, max_rows=max_rows))


async def test_the_nearest_vectors_come_first(client: EngineClient) -> None:
    result = await ask(client, nearVector=[1, 0], limit=2, properties=["title"])

    rows = plain(result)
    assert [row["id"] for row in rows] == IDS[:2]
    assert rows[0]["properties"] == {"title": "red apple"}
    assert rows[0]["distance"] == pytest.approx(0, abs=1e-6)
    assert rows[0]["distance"] < rows[1]["distance"]
    assert "vector" not in rows[0]


async def test_weaviates_own_object_may_say_how_near(client: EngineClient) -> None:
    result = await ask(client, nearVector={"vector": [1, 0], "distance": 0.01})

    assert [row["id"] for row in plain(result)] == IDS[:1]


async def test_a_vector_may_have_more_digits_than_a_double(client: EngineClient) -> None:
    near = [Decimal("1.00000000000000000001"), 0.0]

    assert (await ask(client, nearVector=near, limit=1)).row_count == 1
    assert (await ask(client, nearVector={"vector": near}, limit=1)).row_count == 1


async def test_words_are_found_and_scored(client: EngineClient) -> None:
    result = await ask(client, bm25={"query": "pear", "properties": ["title"]}, vector=True)

    [row] = plain(result)
    assert row["id"] == IDS[2]
    assert row["properties"] == {"title": TITLES[2], "price": 2.5, "tags": ["x"]}
    assert row["score"] > 0
    assert row["vector"] == [1, 2]


async def test_words_and_vectors_are_searched_together(client: EngineClient) -> None:
    hybrid = {"query": "apple", "vector": [1, 0], "alpha": 0.5, "fusionType": "relativeScoreFusion"}

    result = await ask(client, hybrid=hybrid, limit=1)

    assert [row["id"] for row in plain(result)] == IDS[:1]


async def test_a_filter_narrows_any_search(client: EngineClient) -> None:
    where = {
        "operator": "And",
        "operands": [
            {"operator": "GreaterThan", "path": ["price"], "valueNumber": 1},
            {"operator": "Equal", "path": ["title"], "valueText": TITLES[2]},
        ],
    }

    alone = await ask(client, where=where)
    near = await ask(client, where=where, nearVector=[1, 0])

    assert [row["id"] for row in plain(alone)] == IDS[2:]
    assert [row["id"] for row in plain(near)] == IDS[2:]


async def test_graphql_is_passed_on(client: EngineClient) -> None:
    text = "{ Get { PlanOwn(limit: 2) { title } } Aggregate { PlanOwn { meta { count } } } }"

    result = await run(client, Query(query=text, read_only=True))

    data = plain(result)
    assert data["Aggregate"] == {"PlanOwn": [{"meta": {"count": 3}}]}
    assert len(data["Get"]["PlanOwn"]) == 2
    assert result.row_count == 3


async def test_the_vendors_client_reads_what_was_written(
    client: EngineClient, weaviate: EngineServer
) -> None:
    inserted = await ask(client, objects=[{"properties": {"title": "new"}, "vector": [3, 4]}])

    with warnings.catch_warnings(record=True):  # what it imports is deprecated elsewhere
        import weaviate as vendor
        from weaviate.classes.init import Auth

    oracle = vendor.use_async_with_custom(
        http_host=weaviate.host,
        http_port=weaviate.port,
        http_secure=False,
        grpc_host=weaviate.host,
        grpc_port=weaviate.ports["grpc"],
        grpc_secure=False,
        auth_credentials=Auth.api_key(weaviate.admin_password),
        skip_init_checks=True,
    )
    async with oracle:
        found = await oracle.collections.get("PlanOwn").query.fetch_object_by_id(
            plain(inserted)[0]["id"], include_vector=True
        )

    assert found is not None
    assert found.properties["title"] == "new"
    assert found.vector["default"] == [3, 4]


async def test_a_refused_object_says_which_were_stored(client: EngineClient) -> None:
    with pytest.raises(QueryRejected) as refused:
        await ask(client, objects=[{"title": "fine", "vector": [1, 1]}, {"title": 5}])

    assert "1 of 2" in refused.value.detail
    assert len(refused.value.members["inserted"]) == 1


@pytest.mark.parametrize(
    "form",
    [
        {"properties": ["title } } }"]},
        {"where": {"operator": "Equal}", "path": ["title"], "valueText": "x"}},
        {"where": {"operator": "Equal", "path) {": 1}},
        {"nearVector": [1, 0], "bm25": {"query": "x"}},
        {"nearVector": "[1, 0]"},
        {"limit": "1"},
        {"offset": 1},
        {"objects": []},
        {"objects": [{"properties": {}, "title": "x"}]},
    ],
    ids=repr,
)
async def test_what_is_no_query_is_refused(client: EngineClient, form: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await ask(client, **form)


@pytest.mark.parametrize("query", ["", "  ", [], {"objects": [{}]}, {"collection": "a b"}])
async def test_what_names_no_collection_is_refused(client: EngineClient, query: Any) -> None:
    with pytest.raises(InvalidRequest):
        await run(client, Query(query=query))


async def test_a_value_never_ends_its_place(client: EngineClient) -> None:
    hostile = '"}) { title } } Get { PlanOwn { price'

    result = await ask(client, bm25={"query": hostile}, properties=["title"])

    assert all(set(row["properties"]) == {"title"} for row in plain(result))


async def test_a_missing_collection_is_named(client: EngineClient) -> None:
    with pytest.raises(QueryRejected, match="PlanNowhere"):
        await run(client, Query(query={"collection": "planNowhere"}))


async def test_there_are_no_parameters(client: EngineClient) -> None:
    with pytest.raises(ParameterMismatch):
        await run(client, Query(query="{ Get { PlanOwn { title } } }", params={"a": 1}))


@pytest.mark.parametrize("body", ["<html>", "null", '{"data": {"Get": {}}}'])
async def test_an_answer_that_weaviate_would_not_give_is_an_unavailable_engine(body: str) -> None:
    async def answer(request: web.Request, asked: str) -> web.StreamResponse:
        return web.Response(text=body)

    async with (
        recording(answer) as server,
        opened(Engine.WEAVIATE, Weaviate(host="127.0.0.1", port=server.port)) as client,
    ):
        with pytest.raises(EngineUnavailable):
            await run(client, Query(query={"collection": "A", "properties": ["b"]}))


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (401, EngineAuthFailed),
        (403, PermissionDenied),
        (422, QueryRejected),
        (500, EngineUnavailable),
        (503, EngineUnavailable),
    ],
)
async def test_a_status_has_its_problem(status: int, problem: type[Problem]) -> None:
    async def answer(request: web.Request, body: str) -> web.StreamResponse:
        return web.json_response({"error": [{"message": "so"}]}, status=status)

    async with (
        recording(answer) as server,
        opened(Engine.WEAVIATE, Weaviate(host="127.0.0.1", port=server.port)) as client,
    ):
        with pytest.raises(problem) as raised:
            await run(client, Query(query="{ Get { A { b } } }"))

    assert type(raised.value) is problem
    assert raised.value.detail == "so"
