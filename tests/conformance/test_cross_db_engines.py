"""Exactly once on each engine: the same step sent twice, given up, or asked about beforehand."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import pytest

from conformance.cross_db_lab import ask, environment, query, sql
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, SidecarClient, Start
from plan2_contract.engines import Engine
from plan2_sidecar.connections import ConnectionEnvironment
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.arangodb import ArangoDB
from plan2_sidecar.errors import Conflict, QueryRejected
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.query import Query
from plan2_sidecar.routing import Rung
from plan2_sidecar.sagas.effects import Batch, Effects, Results
from plan2_sidecar.sagas.plan import Action
from plan2_sidecar.sagas.repeats import Repeat


def soon() -> Deadline:
    return Deadline.after(20)


@pytest.fixture(scope="module")
def engines(
    postgresql: EngineServer,
    clickhouse: EngineServer,
    weaviate: EngineServer,
    arangodb: EngineServer,
    mongodb: EngineServer,
) -> dict[str, str]:
    return environment(a=postgresql, b=clickhouse, c=weaviate, d=arangodb, e=mongodb)


@pytest.fixture
async def fleet(engines: dict[str, str]) -> AsyncIterator[Fleet]:
    made = Fleet(ConnectionEnvironment(engines))
    made.refresh()
    yield made
    await made.close()


@pytest.fixture
def client(engines: dict[str, str], start_sidecar: Start, connect: Connect) -> SidecarClient:
    return connect(start_sidecar(**engines))


async def run(fleet: Fleet, engine: Engine, text: Any, params: Any = None) -> Any:
    result = await fleet.member(engine).execute(Query(query=text, params=params), soon())
    return result


def action(engine: Engine, repeat: Repeat = Repeat.MARKED, **members: Any) -> Action:
    given = {"query": "", "params": None, "place": "operations[0]", "writes": True}
    return Action(engine=engine, rung=Rung.TARGET, repeat=repeat, **(given | members))


def batch(*queries: Query) -> Batch:
    return Batch(list(range(len(queries))), lambda position, _: queries[position])


COUNTS = {
    Engine.ARANGODB: Query(
        query="UPSERT {_key: 'n'} INSERT {_key: 'n', n: 1} UPDATE {n: OLD.n + 1} IN crossdb "
        "RETURN NEW.n"
    ),
    Engine.MONGODB: Query(
        query={
            "collection": "crossdb",
            "filter": {"_id": "n"},
            "update": {"$inc": {"n": 1}},
            "upsert": True,
        }
    ),
}


@pytest.fixture(params=list(COUNTS), ids=lambda engine: engine.value)
async def counted(
    request: pytest.FixtureRequest, fleet: Fleet, arangodb: EngineServer
) -> tuple[Engine, Callable[[], Awaitable[int]]]:
    """An engine with markers, and how often COUNTS was applied to it."""
    if request.param is Engine.ARANGODB:
        await make_collection(arangodb, "crossdb")
        await run(fleet, Engine.ARANGODB, "FOR d IN crossdb REMOVE d IN crossdb")

        async def count() -> int:
            text = "FOR d IN crossdb RETURN d.n"
            result = await run(fleet, Engine.ARANGODB, text)
            return int((bytes(result.data).strip(b"[]")) or b"0")

    else:
        forget = {"collection": "crossdb", "filter": {}, "delete": "many"}
        await run(fleet, Engine.MONGODB, forget)

        async def count() -> int:
            pipeline = [{"$group": {"_id": None, "n": {"$sum": "$n"}}}]
            asked = {"collection": "crossdb", "pipeline": pipeline}
            result = await run(fleet, Engine.MONGODB, asked)
            found = bytes(result.data)
            return int(found.partition(b'"n":')[2].strip(b"}]") or b"0")

    return request.param, count


async def make_collection(server: EngineServer, name: str) -> None:
    secret = aiohttp.encode_basic_auth(server.admin_user, server.admin_password)
    async with aiohttp.ClientSession(server.url, headers={"Authorization": secret}) as session:
        made = await session.post("/_api/collection", json={"name": name})
        assert made.status in (200, 409)


async def test_a_step_that_is_delivered_twice_is_applied_once(
    fleet: Fleet, counted: tuple[Engine, Callable[[], Awaitable[int]]]
) -> None:
    engine, count = counted
    effects, mark = Effects(fleet), str(uuid.uuid4())

    first = await effects.apply(action(engine), mark, mark, batch(COUNTS[engine]), soon())
    second = await effects.apply(action(engine), mark, mark, batch(COUNTS[engine]), soon())
    other = str(uuid.uuid4())
    await effects.apply(action(engine), other, other, batch(COUNTS[engine]), soon())

    assert {at: bytes(raw) for at, raw in first.items()} == {
        at: bytes(raw) for at, raw in second.items()
    }
    assert await count() == 2


async def test_a_step_that_was_given_up_is_never_applied(
    fleet: Fleet, counted: tuple[Engine, Callable[[], Awaitable[int]]]
) -> None:
    engine, count = counted
    effects, mark = Effects(fleet), str(uuid.uuid4())

    sealed = await effects.seal(action(engine), mark, soon())
    assert sealed is not None
    assert not sealed.applied
    with pytest.raises(QueryRejected, match="given up"):
        await effects.apply(action(engine), mark, mark, batch(COUNTS[engine]), soon())

    assert await count() == 0
    again = await effects.seal(action(engine), mark, soon())
    assert again is not None
    assert not again.applied


async def test_a_step_that_was_applied_cannot_be_given_up(
    fleet: Fleet, counted: tuple[Engine, Callable[[], Awaitable[int]]]
) -> None:
    engine, count = counted
    effects, mark = Effects(fleet), str(uuid.uuid4())
    applied = await effects.apply(action(engine), mark, mark, batch(COUNTS[engine]), soon())

    sealed = await effects.seal(action(engine), mark, soon())

    assert sealed is not None
    assert sealed.applied
    assert bytes(sealed.results[0]) == bytes(applied[0])
    assert await count() == 1


async def test_a_failed_statement_leaves_neither_itself_nor_its_marker(
    fleet: Fleet, counted: tuple[Engine, Callable[[], Awaitable[int]]]
) -> None:
    engine, count = counted
    effects, mark = Effects(fleet), str(uuid.uuid4())
    bad = {
        Engine.ARANGODB: Query(query="INSERT {_key: 'n'} INTO crossdb"),
        Engine.MONGODB: Query(query={"collection": "crossdb", "documents": [{"_id": "n"}]}),
    }[engine]
    good = COUNTS[engine]

    with pytest.raises(QueryRejected):
        await effects.apply(action(engine), mark, mark, batch(good, bad), soon())
    assert await count() == 0
    await effects.apply(action(engine), mark, mark, batch(good), soon())

    assert await count() == 1


async def test_what_a_dead_sidecar_holds_in_arangodb_is_free_after_a_while(
    fleet: Fleet, arangodb: EngineServer
) -> None:
    await make_collection(arangodb, "crossdb")
    await run(fleet, Engine.ARANGODB, "FOR d IN crossdb REMOVE d IN crossdb")
    effects, mark = Effects(fleet), str(uuid.uuid4())
    count = COUNTS[Engine.ARANGODB]
    await effects.seal(action(Engine.ARANGODB), str(uuid.uuid4()), soon())
    client = await fleet.member(Engine.ARANGODB).use(_itself, soon())
    collections = {"write": ["plan2_applied", "crossdb"]}
    begun = await client.call(
        "POST", "/_api/transaction/begin", soon(), {"collections": collections}
    )
    transaction = msgspec.json.decode(begun)["result"]["id"]
    marker = {"_key": mark, "at": 1}
    await client.call("POST", "/_api/document/plan2_applied", soon(), marker, transaction)

    results: Results | None = None
    while results is None:
        with contextlib.suppress(Conflict):
            results = await effects.apply(action(Engine.ARANGODB), mark, mark, batch(count), soon())

    assert bytes(results[0]).startswith(b'{"data":[1]')


async def _itself(client: ArangoDB) -> ArangoDB:
    return client


async def test_clickhouse_drops_an_insert_it_has_seen_only_where_it_remembers(
    client: SidecarClient, fleet: Fleet
) -> None:
    for name, settings in (
        ("remembers", "SETTINGS non_replicated_deduplication_window = 100"),
        ("forgets", ""),
    ):
        await query(client, "clickhouse", f"DROP TABLE IF EXISTS {name}")
        await query(
            client,
            "clickhouse",
            f"CREATE TABLE {name} (n UInt8) ENGINE = MergeTree ORDER BY n {settings}",
        )

    def insert(table: str, **members: Any) -> dict[str, Any]:
        text = f"INSERT INTO {table} VALUES (1)"
        return {"id": table, "targetDatabase": "clickhouse", "query": text, **members}

    taken = await ask(client, operations=[insert("remembers")])
    refused = await ask(client, operations=[insert("forgets")])
    said = await ask(client, operations=[insert("forgets", idempotent=True)])
    effects, mark = Effects(fleet), str(uuid.uuid4())
    named = action(Engine.CLICKHOUSE, Repeat.NAMED)
    for number in (2, 2, 3):
        # The same operation again, even where its rows would be others.
        statement = Query(query=f"INSERT INTO remembers VALUES ({number})")
        await effects.apply(named, mark, mark, batch(statement), soon())
    other = str(uuid.uuid4())
    # Another operation with the same rows.
    statement = Query(query="INSERT INTO remembers VALUES (2)")
    await effects.apply(named, other, other, batch(statement), soon())

    assert (taken.status, said.status) == (200, 200)
    assert (refused.status, refused.body["code"]) == (422, "not_idempotent")
    assert "deduplication window" in refused.body["detail"]
    rows = await query(client, "clickhouse", "SELECT n FROM remembers ORDER BY n")
    assert [row["n"] for row in rows] == [1, 2, 2]


async def test_weaviate_gets_the_same_objects_whoever_sends_them(
    client: SidecarClient, fleet: Fleet, weaviate: EngineServer
) -> None:
    headers = {"Authorization": f"Bearer {weaviate.admin_password}"}
    made = {"class": "CrossDb", "properties": [{"name": "name", "dataType": ["text"]}]}
    async with aiohttp.ClientSession(weaviate.url, headers=headers) as session:
        await session.delete("/v1/schema/CrossDb")
        assert (await session.post("/v1/schema", json=made)).status == 200
    effects, mark = Effects(fleet), str(uuid.uuid4())
    objects = Query(query={"collection": "CrossDb", "objects": [{"name": "a"}, {"name": "b"}]})

    for _ in range(2):
        await effects.apply(
            action(Engine.WEAVIATE, Repeat.NAMED), mark, mark, batch(objects), soon()
        )

    found = await query(client, "weaviate", {"collection": "CrossDb", "properties": ["name"]})
    assert sorted(each["properties"]["name"] for each in found) == ["a", "b"]


@pytest.mark.parametrize("engine", ["mongodb", "arangodb"])
async def test_atomic_on_an_engine_with_transactions(
    client: SidecarClient, fleet: Fleet, arangodb: EngineServer, engine: str
) -> None:
    if engine == "mongodb":
        await query(client, engine, {"collection": "atomic", "filter": {}, "delete": "many"})
        first: Any = {"collection": "atomic", "documents": [{"_id": "a", "n": 1}]}
        second: Any = {"collection": "atomic", "documents": [{"_id": {"$opId": True}}]}
        count: Any = {"collection": "atomic", "filter": {}}
    else:
        await make_collection(arangodb, "atomic")
        await query(client, engine, "FOR d IN atomic REMOVE d IN atomic")
        first = "INSERT {_key: 'a', n: 1} INTO atomic RETURN NEW.n"
        second = "INSERT {_key: 'b'} INTO atomic"
        count = "FOR d IN atomic RETURN d"

    def step(identity: str, text: Any) -> dict[str, Any]:
        return {"id": identity, "targetDatabase": engine, "query": text}

    bad = await ask(
        client, mode="atomic", operations=[step("a", first), step("b", second), step("c", first)]
    )
    good = await ask(client, mode="atomic", operations=[step("a", first), step("b", second)])

    assert (bad.status, bad.body["state"]) == (424, "failed"), bad.body
    states = [each["state"] for each in bad.body["operations"]]
    assert states == ["skipped", "skipped", "failed"]
    assert (good.status, good.body["state"]) == (200, "committed"), good.body
    assert len(await query(client, engine, count)) == 2


async def test_one_saga_over_every_engine_with_results_that_travel(
    client: SidecarClient, arangodb: EngineServer
) -> None:
    await make_collection(arangodb, "travels")
    await query(client, "postgresql", "DROP TABLE IF EXISTS travels")
    await query(client, "postgresql", "CREATE TABLE travels (id serial, price numeric)")
    operations = [
        sql(
            "order",
            "INSERT INTO travels (price) VALUES ($1) RETURNING id, price",
            12345678901234567890.125,
        ),
        {
            "id": "edge",
            "targetDatabase": "arangodb",
            "query": "INSERT {_key: @key, order: @order} INTO travels RETURN NEW._key",
            "params": {"key": {"$opId": True}, "order": {"$ref": "order.data.0.id"}},
        },
        {
            "id": "note",
            "targetDatabase": "mongodb",
            "query": {
                "collection": "travels",
                "documents": [
                    {"_id": {"$ref": "edge.data.0"}, "order": {"$ref": "order.data.0.id"}}
                ],
            },
        },
    ]

    reply = await ask(client, mode="saga", operations=operations)

    assert (reply.status, reply.body["state"]) == (200, "committed"), reply.body
    key = reply.body["operations"][1]["data"][0]
    assert reply.body["operations"][2]["data"] == [{"_id": key}]
    found = await query(client, "mongodb", {"collection": "travels", "filter": {"_id": key}})
    assert found == [{"_id": key, "order": reply.body["operations"][0]["data"][0]["id"]}]
