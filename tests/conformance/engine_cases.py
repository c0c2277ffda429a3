"""The engines as the shared suite sees them: how to connect, and one query for each behaviour."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from fixtures.fix_engines import EngineServer
from plan2_contract.connection import KeyValue, Login, MongoDB, Sql, Weaviate
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import Connection, EngineClient, open_engine
from plan2_sidecar.query import Query, Result

ENCODER = msgspec.json.Encoder()
SECONDS = 10.0


@dataclass(frozen=True)
class Case:
    """`read` finds what `write` wrote and answers `found`; `many` answers at least three rows."""

    engine: Engine
    fixture: str
    prepare: tuple[Query, ...]
    write: Query
    read: Query
    found: Any
    syntax_error: Query
    wrong_parameters: Query
    many: Query
    slow: Query | None = None


def connection(
    case: Case, server: EngineServer, *, password: str | None = None, port: int | None = None
) -> Connection:
    """The admin's connection, or one with another password or port; at most three at once."""
    password = server.admin_password if password is None else password
    port = server.port if port is None else port
    login = Login(username=server.admin_user, password=password)
    match case.engine:
        case Engine.DRAGONFLYDB | Engine.REDIS:
            return KeyValue(host=server.host, port=port, rw=login, pool_max=3)
        case Engine.WEAVIATE:
            return Weaviate(host=server.host, port=port, api_key=password, pool_max=3)
        case Engine.MONGODB:
            uri = (
                f"mongodb://{server.admin_user}:{password}@{server.host}:{port}"
                "/?authSource=admin&directConnection=true"
            )
            return MongoDB(uri=uri, database="cases", pool_max=3)
    database = {"postgresql": "app", "clickhouse": "default", "arangodb": "_system"}[case.engine]
    return Sql(host=server.host, port=port, database=database, rw=login, pool_max=3)


@contextlib.asynccontextmanager
async def opened(engine: Engine, to: Connection) -> AsyncIterator[EngineClient]:
    """A client, closed at the end."""
    client = open_engine(engine, to)
    try:
        yield client
    finally:
        await client.close(1.0)


async def run(client: EngineClient, query: Query, seconds: float = SECONDS) -> Result:
    """The query's result."""
    return await client.execute(query, Deadline.after(seconds))


class Told:
    """What a call that was begun without a task is told: given as `told`, and once alone."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []
        self._once = asyncio.Event()

    def __call__(self, outcome: Any) -> None:
        self.outcomes.append(outcome)
        self._once.set()

    async def outcome(self) -> Any:
        """It, when it is there."""
        async with asyncio.timeout(SECONDS):
            await self._once.wait()
        assert len(self.outcomes) == 1
        return self.outcomes[0]


def plain(result: Result) -> Any:
    """The data as a caller reads it."""
    return msgspec.json.decode(ENCODER.encode(result.data))


def _sql(text: str, *params: Any) -> Query:
    return Query(query=text, params=list(params))


def _named(text: str, **params: Any) -> Query:
    return Query(query=text, params=params)


def _mongodb(**form: Any) -> Query:
    return Query(query={"collection": "plan2_case", **form})


POSTGRESQL = Case(
    engine=Engine.POSTGRESQL,
    fixture="postgresql",
    prepare=(
        _sql("DROP TABLE IF EXISTS plan2_case"),
        _sql("CREATE TABLE plan2_case (id int PRIMARY KEY, name text)"),
    ),
    write=_sql("INSERT INTO plan2_case VALUES ($1, $2)", 1, "Ada"),
    read=_sql("SELECT id, name FROM plan2_case WHERE id = $1", 1),
    found=[{"id": 1, "name": "Ada"}],
    syntax_error=_sql("SELEC 1"),
    wrong_parameters=_sql("SELECT $1::int", 1, 2),
    many=_sql("SELECT n FROM generate_series(1, 5) n"),
    slow=_sql("SELECT pg_sleep(20)"),
)


def _key_value(engine: Engine, fixture: str) -> Case:
    spin = (
        "local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end "
        "local till = now() + 200 while now() < till do end return 1"
    )
    return Case(
        engine=engine,
        fixture=fixture,
        prepare=(
            Query(query=["DEL", "plan2:case", "plan2:many"]),
            Query(query=["RPUSH", "plan2:many", 1, 2, 3]),
        ),
        write=Query(query=["SET", "plan2:case", "Ada"]),
        read=Query(query="GET plan2:case"),
        found="Ada",
        syntax_error=Query(query=["GET"]),
        wrong_parameters=Query(query="GET plan2:case", params=["x"]),
        many=Query(query="LRANGE plan2:many 0 -1"),
        slow=Query(query=["EVAL", spin, 0]),
    )


CLICKHOUSE = Case(
    engine=Engine.CLICKHOUSE,
    fixture="clickhouse",
    prepare=(
        _named("DROP TABLE IF EXISTS plan2_case"),
        _named("CREATE TABLE plan2_case (id UInt64, name String) ENGINE = MergeTree ORDER BY id"),
    ),
    write=_named("INSERT INTO plan2_case VALUES (1, 'Ada')"),
    read=_named("SELECT id, name FROM plan2_case WHERE id = {id:UInt64}", id=1),
    found=[{"id": 1, "name": "Ada"}],
    syntax_error=_named("SELEC 1"),
    wrong_parameters=_named("SELECT {a:UInt64}", b=1),
    many=_named("SELECT number FROM numbers(5)"),
    slow=_named("SELECT sleep(1)"),
)
WEAVIATE = Case(
    engine=Engine.WEAVIATE,
    fixture="weaviate",
    prepare=(),
    write=Query(
        query={
            "collection": "PlanCase",
            "objects": [
                {"id": f"00000000-0000-4000-8000-00000000000{n}", "name": name, "vector": [n, 1]}
                for n, name in enumerate(("Ada", "Bob", "Cem"), 1)
            ],
        }
    ),
    read=Query(
        query={
            "collection": "PlanCase",
            "where": {"operator": "Equal", "path": ["name"], "valueText": "Ada"},
        }
    ),
    found=[{"id": "00000000-0000-4000-8000-000000000001", "properties": {"name": "Ada"}}],
    syntax_error=Query(query="{ Get { "),
    wrong_parameters=Query(query="{ Get { PlanCase { name } } }", params={"a": 1}),
    many=Query(query={"collection": "PlanCase"}),
)
ARANGODB = Case(
    engine=Engine.ARANGODB,
    fixture="arangodb",
    prepare=(_named("FOR each IN plan2_case REMOVE each IN plan2_case"),),
    write=_named("INSERT {_key: '1', name: @name} INTO plan2_case", name="Ada"),
    read=_named("FOR each IN plan2_case FILTER each._key == @key RETURN each.name", key="1"),
    found=["Ada"],
    syntax_error=_named("FOR x IN"),
    wrong_parameters=_named("RETURN 1", a=1),
    many=_named("FOR i IN 1..5 RETURN i"),
    slow=_named("RETURN SLEEP(20)"),
)
MONGODB = Case(
    engine=Engine.MONGODB,
    fixture="mongodb",
    prepare=(
        _mongodb(filter={}, delete="many"),
        _mongodb(documents=[{"_id": 2}, {"_id": 3}, {"_id": 4}]),
    ),
    write=_mongodb(documents=[{"_id": 1, "name": "Ada"}]),
    read=_mongodb(filter={"_id": 1}),
    found=[{"_id": 1, "name": "Ada"}],
    syntax_error=_mongodb(filter={"$nonsense": 1}),
    wrong_parameters=Query(query={"collection": "plan2_case", "filter": {}}, params=[1]),
    many=_mongodb(filter={}),
)
CASES = (
    POSTGRESQL,
    _key_value(Engine.DRAGONFLYDB, "dragonflydb"),
    CLICKHOUSE,
    WEAVIATE,
    ARANGODB,
    MONGODB,
    _key_value(Engine.REDIS, "redis_legacy"),
)


async def make_room(case: Case, server: EngineServer) -> None:
    """The collections that no query can make."""
    if case.engine is Engine.WEAVIATE:
        headers = {"Authorization": f"Bearer {server.admin_password}"}
        properties = [{"name": "name", "dataType": ["text"]}]
        made = {"class": "PlanCase", "vectorizer": "none", "properties": properties}
        async with aiohttp.ClientSession(server.url, headers=headers) as session:
            await session.delete("/v1/schema/PlanCase")
            assert (await session.post("/v1/schema", json=made)).status == 200
    if case.engine is Engine.ARANGODB:
        secret = aiohttp.encode_basic_auth(server.admin_user, server.admin_password)
        async with aiohttp.ClientSession(server.url, headers={"Authorization": secret}) as session:
            made_now = await session.post("/_api/collection", json={"name": "plan2_case"})
            assert made_now.status in (200, 409)
