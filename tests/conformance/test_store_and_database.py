"""The sidecar's own store and database: raw replies, scripts, transactions, migrations."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from fixtures.fix_engines import EngineServer
from plan2_contract import connection, schema
from plan2_contract.connection import Document, Engines, KeyValue, Login, Sql
from plan2_contract.engines import Engine
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import (
    Conflict,
    EngineNotConfigured,
    EngineUnavailable,
    QueryRejected,
    SchemaOutdated,
)
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.store import Script, Store

SECONDS = 10.0


class Given:
    """One connection document."""

    def __init__(self, engines: Engines) -> None:
        self._document: Document | None = Document(version=connection.VERSION, engines=engines)

    def poll(self) -> Document | None:
        document, self._document = self._document, None
        return document


def fleet_of(engines: Engines) -> Fleet:
    fleet = Fleet(Given(engines))
    fleet.refresh()
    return fleet


def soon() -> Deadline:
    return Deadline.after(SECONDS)


def key_value(server: EngineServer, password: str | None = None) -> KeyValue:
    return KeyValue(
        host=server.host,
        port=server.port,
        rw=Login(username=server.admin_user, password=password or server.admin_password),
    )


@pytest.fixture
async def store(dragonflydb: EngineServer) -> AsyncIterator[Store]:
    fleet = fleet_of(Engines(dragonflydb=key_value(dragonflydb)))
    yield Store(fleet)
    await fleet.close()


async def test_a_reply_comes_as_the_bytes_it_is(store: Store) -> None:
    key = uuid.uuid4().hex
    assert await store.ask("SET", key, b"\xff\x00", deadline=soon()) == b"OK"
    assert await store.ask("GET", key, deadline=soon()) == b"\xff\x00"
    assert await store.ask("GET", key + "x", deadline=soon()) is None


async def test_an_error_reply_is_a_problem(store: Store) -> None:
    with pytest.raises(QueryRejected, match="syntax"):
        await store.ask("SET", "k", "v", "NONSENSE", deadline=soon())


async def test_a_script_is_sent_whole_once(store: Store) -> None:
    script = Script(f"return redis.call('INCRBY', KEYS[1], ARGV[1]) -- {uuid.uuid4().hex}")
    key = uuid.uuid4().hex
    assert await store.run(script, key, [2], soon()) == 2
    assert await store.ask("SCRIPT", "EXISTS", script.digest, deadline=soon()) == [1]
    assert await store.run(script, key, [3], soon()) == 5


async def test_a_store_that_is_down_is_unavailable(dragonflydb: EngineServer) -> None:
    fleet = fleet_of(Engines(dragonflydb=KeyValue(host="127.0.0.1", port=1)))
    with pytest.raises(EngineUnavailable):
        await Store(fleet).ask("GET", "k", deadline=soon())
    await fleet.close()


async def test_no_store_is_not_configured() -> None:
    store = Store(fleet_of(Engines()))
    assert not store.configured
    with pytest.raises(EngineNotConfigured):
        await store.ask("GET", "k", deadline=soon())


Open = Callable[..., Database]


async def admin(server: EngineServer, database: str) -> Any:
    return await asyncpg.connect(
        host=server.host,
        port=server.port,
        user=server.admin_user,
        password=server.admin_password,
        database=database,
    )


@pytest.fixture
async def empty(postgresql: EngineServer) -> AsyncIterator[str]:
    """A new database."""
    name = f"own_{uuid.uuid4().hex[:12]}"
    server = await admin(postgresql, "postgres")
    await server.execute(f"CREATE DATABASE {name}")
    yield name
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


@pytest.fixture
async def open_database(postgresql: EngineServer, empty: str) -> AsyncIterator[Open]:
    fleets: list[Fleet] = []

    def opened(*, migrates: bool, user: str | None = None, password: str | None = None) -> Database:
        login = Login(
            username=user or postgresql.admin_user,
            password=password or postgresql.admin_password,
        )
        sql = Sql(host=postgresql.host, port=postgresql.port, database=empty, rw=login)
        fleets.append(fleet_of(Engines(postgresql=sql)))
        return Database(fleets[-1], migrates=migrates)

    yield opened
    for fleet in fleets:
        await fleet.close()


async def count(transaction: Any) -> int:
    number: int = await transaction.connection.fetchval("SELECT count(*)::int FROM plan2.session")
    return number


async def insert(transaction: Any) -> None:
    await transaction.connection.execute("INSERT INTO plan2.session VALUES ('a', '1', now())")


async def test_started_by_hand_it_migrates(open_database: Open) -> None:
    database = open_database(migrates=True)
    await database.run(insert, soon(), needs=schema.NEWEST)
    assert await database.run(count, soon(), needs=schema.NEWEST) == 1


async def test_two_sidecars_migrate_at_once(open_database: Open) -> None:
    databases = [open_database(migrates=True) for _ in range(4)]
    counts = await asyncio.gather(
        *(database.run(count, soon(), needs=schema.NEWEST) for database in databases)
    )
    assert counts == [0, 0, 0, 0]


async def test_beside_an_operator_it_waits_for_the_schema(open_database: Open) -> None:
    with pytest.raises(SchemaOutdated, match="version 0 and this call needs 2"):
        await open_database(migrates=False).run(count, soon(), needs=schema.SESSIONS)
    await open_database(migrates=True).run(count, soon(), needs=schema.SESSIONS)
    assert await open_database(migrates=False).run(count, soon(), needs=schema.SESSIONS) == 0


async def test_a_schema_that_was_outdated_is_looked_at_again(open_database: Open) -> None:
    database = open_database(migrates=False)
    with pytest.raises(SchemaOutdated):
        await database.run(count, soon(), needs=schema.SESSIONS)
    await open_database(migrates=True).run(count, soon(), needs=schema.SESSIONS)
    assert await database.run(count, soon(), needs=schema.SESSIONS) == 0


async def test_a_role_that_may_not_create_says_what_is_missing(
    open_database: Open, postgresql: EngineServer, empty: str
) -> None:
    name = f"role_{uuid.uuid4().hex[:12]}"
    server = await admin(postgresql, empty)
    try:
        await server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        await server.execute("CREATE SCHEMA plan2")
        with pytest.raises(SchemaOutdated):
            await open_database(migrates=True, user=name, password="secret").run(
                count, soon(), needs=schema.SESSIONS
            )
    finally:
        await server.execute(f"DROP ROLE {name}")
        await server.close()


async def test_a_transaction_is_undone_when_the_work_fails(open_database: Open) -> None:
    database = open_database(migrates=True)

    async def fail(transaction: Any) -> None:
        await insert(transaction)
        await insert(transaction)

    with pytest.raises(Conflict):
        await database.run(fail, soon(), needs=schema.SESSIONS)
    assert await database.run(count, soon(), needs=schema.SESSIONS) == 0


async def test_no_database_is_not_configured() -> None:
    database = Database(fleet_of(Engines()), migrates=True)
    assert not database.configured
    with pytest.raises(EngineNotConfigured) as refused:
        await database.run(count, soon(), needs=schema.SESSIONS)
    assert refused.value.database is Engine.POSTGRESQL
