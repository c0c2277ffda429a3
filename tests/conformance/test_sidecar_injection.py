"""What is smuggled into values and statements stays what it was: text, or refused. Real engines.

Each engine holds something that the smuggled part would destroy; it is there afterwards.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests

from conformance.stream_client import streamed
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, Reply, SidecarClient, SidecarProcess, starting

DROP = "x'; DROP TABLE victim; --"
BREAKS = "v\r\nFLUSHALL\r\n*1\r\n$8\r\nFLUSHALL\r\n"
CODE = {"body": "function() { return true }", "args": [], "lang": "js"}
VICTIM = {"collection": "victim", "filter": {"_id": 1}}


@pytest.fixture(scope="module")
def sidecar(all_engines: dict[str, str], arangodb: EngineServer) -> Iterator[SidecarProcess]:
    requests.post(
        f"http://{arangodb.host}:{arangodb.port}/_api/collection",
        json={"name": "victim"},
        auth=(arangodb.admin_user, arangodb.admin_password),
        timeout=10,
    )
    with starting() as start:
        yield start(**all_engines)


@pytest.fixture(scope="module")
async def victims(sidecar: SidecarProcess) -> None:
    """One in every engine."""
    client = SidecarClient(sidecar.url, None, {})
    await made(client)
    await client.close()


@pytest.fixture
async def client(
    sidecar: SidecarProcess, victims: None, connect: Connect
) -> AsyncIterator[SidecarClient]:
    """Every engine's victim is there after the test."""
    client = connect(sidecar)
    yield client
    assert await there(client) == {
        "postgresql": [{"n": 1}],
        "clickhouse": [{"n": 1}],
        "arangodb": [1],
        "mongodb": [{"_id": 1, "n": 1}],
        "dragonflydb": "1",
        "redis": "1",
    }


async def made(client: SidecarClient) -> None:
    for reply in (
        await client.query("CREATE TABLE IF NOT EXISTS victim (n int)", "postgresql"),
        await client.query("TRUNCATE victim", "postgresql"),
        await client.query("INSERT INTO victim VALUES (1)", "postgresql"),
        await client.query("DROP TABLE IF EXISTS victim", "clickhouse"),
        await client.query("CREATE TABLE victim (n UInt8) ENGINE = Memory", "clickhouse"),
        await client.query("INSERT INTO victim VALUES (1)", "clickhouse"),
        await client.query(
            "UPSERT {_key: '1'} INSERT {_key: '1', n: 1} UPDATE {n: 1} INTO victim", "arangodb"
        ),
        await client.query({**VICTIM, "update": {"$set": {"n": 1}}, "upsert": True}, "mongodb"),
        await client.query(["SET", "victim", "1"], "dragonflydb"),
        await client.query(["SET", "victim", "1"], "redis"),
    ):
        assert reply.status == 200, reply.body


async def there(client: SidecarClient) -> dict[str, Any]:
    asked = {
        "postgresql": "SELECT n FROM victim",
        "clickhouse": "SELECT n FROM victim",
        "arangodb": "FOR each IN victim FILTER each._key == '1' RETURN each.n",
        "mongodb": VICTIM,
        "dragonflydb": ["GET", "victim"],
        "redis": ["GET", "victim"],
    }
    return {name: (await client.query(text, name)).body["data"] for name, text in asked.items()}


def refused(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.body["code"]


@pytest.mark.parametrize("engine", ["postgresql", "clickhouse"])
@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1; DROP TABLE victim",
        "SELECT 1;DROP TABLE victim;",
        "SELECT ';' AS a; DROP TABLE victim",
        "SELECT 1 /* ; */ ; DROP TABLE victim --",
        "SELECT 1 -- a\n; DROP TABLE victim",
    ],
)
async def test_a_second_statement_is_refused(
    client: SidecarClient, sidecar: SidecarProcess, engine: str, text: str
) -> None:
    reply = await client.query(text, engine)
    stream = await streamed(sidecar, text, engine)

    assert refused(reply) == (400, "multiple_statements")
    assert (stream.status, stream.problem["code"]) == (400, "multiple_statements")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1) plan2_query) plan2_row; DROP TABLE victim; --",
        "SELECT 1) plan2_query) plan2_row --",
        "SELECT 1) a, (SELECT 2",
        "DELETE FROM nowhere RETURNING 1) SELECT 1 --",
        "SELECT 1 /*",
        "SELECT 1 AS a WHERE 'x' = 'y",
        "COPY victim TO PROGRAM 'true'",
        "COMMIT",
    ],
)
async def test_no_statement_breaks_out_of_the_one_around_it(
    client: SidecarClient, sidecar: SidecarProcess, text: str
) -> None:
    reply = await client.query(text, "postgresql")
    stream = await streamed(sidecar, text, "postgresql")

    assert reply.status in (400, 422)
    assert stream.status == reply.status


@pytest.mark.parametrize(
    ("engine", "text", "params", "row"),
    [
        ("postgresql", "SELECT $1::text AS a, '$1' AS b", [DROP], {"a": DROP, "b": "$1"}),
        ("postgresql", "SELECT $1::jsonb AS a", [{DROP: DROP}], {"a": {DROP: DROP}}),
        ("clickhouse", "SELECT {a:String} AS a", {"a": DROP}, {"a": DROP}),
        (
            "clickhouse",
            "SELECT {a:String} AS a",
            {"a": "x&query=DROP TABLE victim&readonly=0"},
            {"a": "x&query=DROP TABLE victim&readonly=0"},
        ),
        ("clickhouse", "SELECT {a:Array(String)} AS a", {"a": [DROP, "\\'"]}, {"a": [DROP, "\\'"]}),
        (
            "arangodb",
            "RETURN {a: @a}",
            {"a": '" FOR each IN victim REMOVE each IN victim //'},
            {"a": '" FOR each IN victim REMOVE each IN victim //'},
        ),
    ],
)
async def test_a_value_is_never_read_as_a_statement(
    client: SidecarClient, sidecar: SidecarProcess, engine: str, text: str, params: Any, row: Any
) -> None:
    reply = await client.query(text, engine, params=params)
    stream = await streamed(sidecar, text, engine, params=params)

    assert (reply.status, reply.body["data"]) == (200, [row])
    assert stream.rows == [row]


@pytest.mark.parametrize(
    ("engine", "text", "params"),
    [
        ("clickhouse", "SELECT * FROM {t:Identifier}", {"t": "victim; DROP TABLE victim"}),
        ("clickhouse", "SELECT {a:String} AS a", {"a": 1, "b&query=DROP TABLE victim": 1}),
        ("arangodb", "RETURN @a", {"a": 1, "b": 2}),
        ("arangodb", "FOR x IN @@c RETURN x", {"@c": "victim REMOVE x IN victim"}),
        ("arangodb", "RETURN 1 FOR x IN victim REMOVE x IN victim", {}),
    ],
)
async def test_a_name_is_never_read_as_a_statement(
    client: SidecarClient, engine: str, text: str, params: Any
) -> None:
    assert (await client.query(text, engine, params=params)).status in (400, 422)


@pytest.mark.parametrize(
    "form",
    [
        {"filter": {"$where": "sleep(1000) || true"}},
        {"filter": {"$or": [{"a": {"$not": {"$where": "1"}}}]}},
        {"filter": {"$expr": {"$function": CODE}}},
        {"projection": {"a": {"$function": CODE}}},
        {"pipeline": [{"$match": {"$where": "1"}}]},
        {"pipeline": [{"$group": {"_id": 1, "a": {"$accumulator": {"init": "1"}}}}]},
        {"pipeline": [{"$lookup": {"from": "victim", "pipeline": [{"$match": {"$where": "1"}}]}}]},
        {"pipeline": [{"$facet": {"a": [{"$set": {"b": {"$function": CODE}}}]}}]},
        {"filter": {"$where": "1"}, "delete": "many"},
        {"filter": {}, "update": [{"$set": {"n": {"$function": CODE}}}], "many": True},
    ],
)
async def test_no_code_of_a_callers_runs_in_mongodb(
    client: SidecarClient, sidecar: SidecarProcess, form: dict[str, Any]
) -> None:
    query = {"collection": "victim", **form}

    reply = await client.query(query, "mongodb")
    batch = await client.call(
        "POST", "/api/v2/batch", json={"queries": [{"query": query, "targetDatabase": "mongo"}]}
    )

    assert refused(reply) == (422, "query_rejected")
    assert batch.body["results"][0]["problem"]["code"] == "query_rejected"


@pytest.mark.parametrize("engine", ["dragonflydb", "redis"])
@pytest.mark.parametrize(
    ("command", "key"),
    [
        (["SET", "smuggled", BREAKS], "smuggled"),
        (["SET", f"smuggled{BREAKS}", "v"], f"smuggled{BREAKS}"),
        ("SET smuggled v\r\nFLUSHALL\r\n", "smuggled"),
    ],
    ids=["value", "key", "text"],
)
async def test_a_line_break_ends_no_command(
    client: SidecarClient, engine: str, command: Any, key: str
) -> None:
    words = command.split(" ") if isinstance(command, str) else command

    written = await client.query(command, engine)
    read = await client.query(["GET", key], engine)

    assert written.body["data"] == "OK"
    assert read.body["data"] == words[2]


async def test_a_line_break_in_a_command_or_a_name_is_nothing_but_text(
    client: SidecarClient,
) -> None:
    name = quote(BREAKS, safe="")

    unknown = await client.query(["PING\r\nFLUSHALL"], "dragonflydb")
    kept = await client.call("PUT", f"/api/v2/cache/{name}", json={"value": BREAKS})
    found = await client.get(f"/api/v2/cache/{name}")
    lost = await client.get(f"/api/v2/cross-db/{quote('x' + BREAKS + 'Set-Cookie: a=b', safe='')}")
    counted = await client.call(
        "POST", "/api/v2/rate-limit/check", json={"clientId": BREAKS, "limit": 3}
    )

    assert unknown.status in (400, 403, 422)
    assert (kept.status, found.body["value"]) == (204, BREAKS)
    assert (lost.status, "Set-Cookie" in lost.headers) == (404, False)
    assert (counted.status, counted.body["allowed"]) == (200, True)


async def test_names_of_users_and_sessions_are_nothing_but_text(client: SidecarClient) -> None:
    name = quote(DROP, safe="")

    stored = await client.call("PUT", f"/api/v2/config/{name}/{name}", json={"value": DROP})
    read = await client.get(f"/api/v2/config/{name}/{name}")
    session = await client.call("PUT", f"/api/v2/sessions/{name}", json={"data": DROP})
    told = await client.call(
        "POST",
        "/api/v2/analytics/requests",
        json={"method": DROP, "path": DROP, "status": 200, "durationMs": 1, "clientId": DROP},
    )

    assert (stored.status, read.body["value"]) == (200, DROP)
    assert session.status == 204
    assert told.status in (202, 400)


@pytest.mark.parametrize(
    "form",
    [
        {"collection": "A { a } } } #", "limit": 1},
        {"collection": "Victim", "properties": ["a } } } #"]},
        {"collection": "Victim", "bm25": {"query": "a", "a:1}) { b } #": 1}},
        {"collection": "Victim", "where": {"operator": "Equal}) #", "path": ["a"]}},
    ],
    ids=["collection", "property", "argument", "operator"],
)
async def test_a_search_of_weaviate_cannot_be_written_further(
    client: SidecarClient, form: dict[str, Any]
) -> None:
    assert refused(await client.query(form, "weaviate"))[0] in (400, 422)
