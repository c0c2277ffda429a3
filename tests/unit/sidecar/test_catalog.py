"""What is known of the engines' tables: read on need, doubted after definitions, not waited for."""

import asyncio
from typing import Any

import pytest

from fixtures.fix_clock import HandClock
from plan2_contract.connection import Document, Engines, Login, Sql
from plan2_contract.engines import Engine
from plan2_sidecar.catalog import (
    AGAIN_SECONDS,
    EVERY_SECONDS,
    JITTER,
    MOST_TABLES,
    CatalogReader,
)
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.base import EngineClient
from plan2_sidecar.errors import AmbiguousRoute, EngineUnavailable
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.query import Query, Result
from plan2_sidecar.router import Router
from plan2_sidecar.routing import Rung, Tables

PG, CH = Engine.POSTGRESQL, Engine.CLICKHOUSE


class Source:
    """A source of connection documents."""

    def __init__(self) -> None:
        self.next: Document | None = document("first")

    def poll(self) -> Document | None:
        given, self.next = self.next, None
        return given


class Servers:
    """Both engines: the tables they have, whether they answer, and how often they were asked."""

    def __init__(self) -> None:
        self.tables = {PG: ["accounts"], CH: ["trades"]}
        self.down: set[Engine] = set()
        self.readings = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def open(self, engine: Engine, connection: Any) -> EngineClient:
        return Client(engine, self)


class Client:
    """One engine's."""

    def __init__(self, engine: Engine, servers: Servers) -> None:
        self.engine = engine
        self._servers = servers

    async def execute(self, query: Query, deadline: Deadline) -> Result:
        if "AS place" not in str(query.query):
            return Result(data=[], row_count=0)
        self._servers.readings += 1
        names = list(self._servers.tables[self.engine])
        await self._servers.go_on.wait()
        if self.engine in self._servers.down:
            raise EngineUnavailable("away")
        here = True if self.engine is PG else 1
        rows = [{"place": "public", "name": name, "here": here} for name in names]
        return Result(data=rows[: query.max_rows], row_count=len(rows))

    async def ping(self, deadline: Deadline) -> str:
        return "1.0"

    def pool(self) -> dict[str, int]:
        return {"size": 0, "idle": 0, "inUse": 0, "max": 1}

    async def close(self, grace_seconds: float) -> None:
        """Nothing to close."""


def document(password: str) -> Document:
    def sql(port: int, password: str) -> Sql:
        login = Login(username="u", password=password)
        return Sql(host="h", port=port, database="d", rw=login)

    return Document(
        version=1, engines=Engines(postgresql=sql(1, password), clickhouse=sql(2, "same"))
    )


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def fleet(source: Source, servers: Servers, clock: HandClock) -> Fleet:
    fleet = Fleet(source, opener=servers.open, clock=clock)
    fleet.refresh()
    return fleet


@pytest.fixture
def reader(fleet: Fleet, clock: HandClock) -> CatalogReader:
    return CatalogReader(fleet, clock, lambda: 0.5)


async def read(reader: CatalogReader) -> None:
    reader.need()
    await reader.settled(Deadline.after(5))


async def test_nothing_is_read_before_somebody_needs_it(
    reader: CatalogReader, servers: Servers
) -> None:
    await reader.look()
    await asyncio.sleep(0)

    assert servers.readings == 0
    assert set(reader.snapshot().tables.values()) == {None}


async def test_names_are_known_with_and_without_their_schema(reader: CatalogReader) -> None:
    await read(reader)

    known = reader.snapshot().tables
    assert known[PG] == Tables(frozenset({("accounts",), ("public", "accounts")}))
    assert known[CH] == Tables(frozenset({("trades",), ("public", "trades")}))


async def test_it_is_read_again_later_and_stays_the_same_value_while_nothing_changes(
    reader: CatalogReader, servers: Servers, clock: HandClock
) -> None:
    await read(reader)
    before = reader.snapshot()
    await reader.look()
    readings = servers.readings

    clock.now += EVERY_SECONDS * (1 + JITTER)
    await reader.look()
    await reader.settled(Deadline.after(5))

    assert (readings, servers.readings) == (2, 4)
    assert reader.snapshot() is before


async def test_a_definition_through_this_sidecar_makes_it_doubtful_until_read_again(
    reader: CatalogReader, fleet: Fleet, servers: Servers
) -> None:
    await read(reader)
    servers.tables[PG].append("orders")

    query = Query(query="/* new */ create table orders (a int)")
    await fleet.member(PG).execute(query, Deadline.after(5))
    doubtful = reader.snapshot().tables[PG]
    await read(reader)
    again = reader.snapshot().tables[PG]

    assert doubtful is not None
    assert (doubtful.complete, ("orders",) in doubtful.names) == (False, False)
    assert again is not None
    assert (again.complete, ("orders",) in again.names) == (True, True)


async def test_an_engine_that_is_down_is_unknown_and_waited_for_once(
    reader: CatalogReader, servers: Servers, clock: HandClock
) -> None:
    servers.down = {CH}
    await read(reader)
    servers.go_on.clear()
    clock.now += AGAIN_SECONDS
    reader.need()

    assert reader.snapshot().tables[CH] is None
    assert reader.snapshot().tables[PG] is not None
    assert not await reader.settled(Deadline.after(5))
    servers.go_on.set()


async def test_what_was_known_stays_known_when_the_engine_goes_away(
    reader: CatalogReader, servers: Servers, clock: HandClock
) -> None:
    await read(reader)
    before = reader.snapshot()

    servers.down = {PG, CH}
    clock.now += EVERY_SECONDS * (1 + JITTER)
    await read(reader)

    assert reader.snapshot() is before


async def test_another_connection_has_other_tables(
    reader: CatalogReader, fleet: Fleet, source: Source
) -> None:
    await read(reader)

    source.next = document("second")
    fleet.refresh()

    assert reader.snapshot().tables[PG] is None
    assert reader.snapshot().tables[CH] is not None


async def test_of_too_many_tables_some_are_known_and_none_is_said_to_be_missing(
    reader: CatalogReader, servers: Servers
) -> None:
    servers.tables[PG] = [f"t{number}" for number in range(MOST_TABLES + 5)]

    await read(reader)

    known = reader.snapshot().tables[PG]
    assert known is not None
    assert len(known.names) == 2 * MOST_TABLES
    assert not known.complete


async def test_readings_end_with_the_sidecar(reader: CatalogReader, servers: Servers) -> None:
    servers.go_on.clear()
    reader.need()
    await asyncio.sleep(0)

    await reader.close()

    assert not await reader.settled(Deadline.after(0.1))


async def test_the_first_query_that_needs_tables_waits_for_them_and_is_routed(
    reader: CatalogReader,
) -> None:
    router = Router(reader)

    route = await router.route("SELECT * FROM trades", None, None, Deadline.after(5))

    assert (route.engine, route.rung) == (CH, Rung.CATALOG)
    assert "trades" in route.reason


async def test_a_query_behind_a_definition_finds_the_new_table(
    reader: CatalogReader, fleet: Fleet, servers: Servers
) -> None:
    router = Router(reader)
    await read(reader)
    servers.tables[PG].append("orders")
    await fleet.member(PG).execute(Query(query="CREATE TABLE orders (a int)"), Deadline.after(5))

    route = await router.route("INSERT INTO orders VALUES (1)", None, None, Deadline.after(5))

    assert (route.engine, route.rung) == (PG, Rung.CATALOG)


async def test_a_reading_that_began_before_a_definition_ended_is_followed_by_another(
    reader: CatalogReader, fleet: Fleet, servers: Servers
) -> None:
    router = Router(reader)
    servers.go_on.clear()
    reader.need()
    await asyncio.sleep(0.01)
    await fleet.member(PG).execute(Query(query="CREATE TABLE orders (a int)"), Deadline.after(5))
    servers.tables[PG] = ["orders"]

    write = "INSERT INTO orders VALUES (1)"
    asking = asyncio.create_task(router.route(write, None, None, Deadline.after(5)))
    await asyncio.sleep(0.01)
    servers.go_on.set()

    assert (await asking).engine is PG
    assert servers.readings == 3


async def test_a_dead_engine_holds_up_no_query_and_makes_no_write_certain(
    reader: CatalogReader, servers: Servers
) -> None:
    router = Router(reader)
    servers.down = {CH}
    await read(reader)

    read_route = await router.route("SELECT * FROM accounts", None, None, Deadline.after(5))
    with pytest.raises(AmbiguousRoute) as refused:
        await router.route("DELETE FROM accounts WHERE id = 1", None, None, Deadline.after(5))

    assert (read_route.engine, read_route.rung) == (PG, Rung.CATALOG)
    assert refused.value.members["candidates"] == ["postgresql", "clickhouse"]


async def test_a_query_that_says_where_it_goes_needs_no_tables(
    reader: CatalogReader, servers: Servers
) -> None:
    router = Router(reader)

    await router.route("SELECT 1", "postgresql", None, Deadline.after(5))
    await router.route("GET k", None, None, Deadline.after(5))
    await reader.look()
    await asyncio.sleep(0)

    assert servers.readings == 0
