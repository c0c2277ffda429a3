"""Batches, the calls from before, and the API's own description, over a real PostgreSQL."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from fixtures.fix_all_engines import variables
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, SidecarClient, SidecarProcess, starting

TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def sidecar(postgresql: EngineServer) -> Iterator[SidecarProcess]:
    with starting() as start:
        yield start(**variables(postgresql), POSTGRES_POOL_MAX="4", PLAN2_API_TOKEN="secret")


@pytest.fixture
def client(sidecar: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(sidecar, **TOKEN)


def query(text: str, **members: Any) -> dict[str, Any]:
    return {"query": text, "targetDatabase": "postgresql", **members}


async def test_each_query_of_a_batch_has_its_own_status_in_order(client: SidecarClient) -> None:
    queries = [
        query("SELECT $1::numeric AS n", params=[1.5]),
        query("SELECT nothing FROM nowhere"),
        {"query": "RETURN 1", "targetDatabase": "arangodb"},
        {"query": "SELECT 1"},
        query("SELECT pg_sleep(9)", options={"timeoutMs": 300}),
    ]

    reply = await client.call("POST", "/api/v2/batch", json={"queries": queries})

    assert reply.status == 200
    results = reply.body["results"]
    assert [result["status"] for result in results] == [200, 422, 422, 422, 504]
    assert results[0]["rowCount"] == 1
    assert results[0]["meta"]["database"] == "postgresql"
    codes = [result["problem"]["code"] for result in results[1:]]
    assert codes == [
        "query_rejected",
        "engine_not_configured",
        "ambiguous_route",
        "deadline_exceeded",
    ]


async def test_numbers_in_a_batch_keep_all_their_digits(client: SidecarClient) -> None:
    number = "1234567890.12345678901234567890"
    body = (
        '{"queries": [{"query": "SELECT $1::numeric::text AS n", '
        f'"targetDatabase": "postgresql", "params": [{number}]}}]}}'
    )

    reply = await client.call(
        "POST", "/api/v2/batch", data=body, headers={"Content-Type": "application/json"}
    )

    assert reply.body["results"][0]["data"] == [{"n": number}]


async def test_a_hundred_queries_fit_in_a_small_bulkhead(client: SidecarClient) -> None:
    queries = [query("SELECT $1::int AS n, pg_sleep(0.01)", params=[n]) for n in range(100)]

    batch = asyncio.create_task(client.call("POST", "/api/v2/batch", json={"queries": queries}))
    beside = [await client.query("SELECT 1 AS n", "postgresql") for _ in range(5)]
    results = (await batch).body["results"]

    assert [result["status"] for result in results] == [200] * 100
    assert [result["data"][0]["n"] for result in results] == list(range(100))
    assert [reply.status for reply in beside] == [200] * 5


@pytest.mark.parametrize(
    "queries",
    [[], [query("SELECT 1")] * 101, [{"query": "SELECT 1", "unknown": 1}], None],
    ids=["none", "many", "unknown", "null"],
)
async def test_a_batch_that_cannot_be_read_is_refused_whole(
    client: SidecarClient, queries: Any
) -> None:
    reply = await client.call("POST", "/api/v2/batch", json={"queries": queries})

    assert (reply.status, reply.body["code"]) == (400, "invalid_request")


async def test_v1_names_the_columns_of_no_rows_too(client: SidecarClient) -> None:
    some = await client.call(
        "POST", "/api/v1/query", json={"sql": "SELECT $1::int AS id, 'a' AS name", "params": [1]}
    )
    none = await client.call(
        "POST", "/api/v1/query", json={"query": "SELECT 1 AS id, 'a' AS name WHERE false"}
    )
    changed = await client.call("POST", "/api/v1/query", json={"sql": "SET work_mem = '8MB'"})

    fields = [{"name": "id"}, {"name": "name"}]
    assert some.body == {"rows": [{"id": 1, "name": "a"}], "rowCount": 1, "fields": fields}
    assert none.body == {"rows": [], "rowCount": 0, "fields": fields}
    assert (changed.body["rows"], changed.body["fields"]) == ([], [])


async def test_the_classic_health_calls_need_no_token(
    sidecar: SidecarProcess, connect: Connect
) -> None:
    nobody = connect(sidecar)

    replies = [await nobody.get(path) for path in ("/health", "/api/v1/health")]

    assert [reply.body for reply in replies] == [
        {"status": "ok", "engines": {"postgresql": "up"}}
    ] * 2


async def test_the_api_describes_itself_to_anybody(
    sidecar: SidecarProcess, connect: Connect
) -> None:
    reply = await connect(sidecar).get("/openapi.json")

    assert (reply.status, reply.body["openapi"]) == (200, "3.1.0")
    assert "/api/v2/batch" in reply.body["paths"]


async def test_every_call_under_api_v2_needs_the_token(
    sidecar: SidecarProcess, connect: Connect
) -> None:
    nobody = connect(sidecar)
    paths = (await nobody.get("/openapi.json")).body["paths"]
    calls = [
        (
            method.upper(),
            path.format_map(
                {name: "x" for name in ("id", "key", "userId")}
                | {"clientId": "x", "name": "x", "instance": "x", "route": "x"}
            ),
        )
        for path, methods in paths.items()
        if path.startswith("/api/v2")
        for method in methods
    ]

    statuses = {call: (await nobody.call(*call)).status for call in calls}

    assert len(calls) > 10
    assert {call for call, status in statuses.items() if status != 401} == set()
