"""Routing by what the engines have: PostgreSQL and ClickHouse behind one sidecar."""

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.under_load import write_document
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import (
    Connect,
    Reply,
    SidecarClient,
    SidecarProcess,
    eventually,
    nobody_there,
    starting,
)
from plan2_contract.engines import Engine


@pytest.fixture(scope="module")
def sidecar(
    postgresql: EngineServer, clickhouse: EngineServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SidecarProcess]:
    file = tmp_path_factory.mktemp("routing") / "connection.json"
    servers = {Engine.POSTGRESQL: postgresql, Engine.CLICKHOUSE: clickhouse}
    write_document(file, servers)
    with starting() as start:
        yield start(PLAN2_CONNECTION_FILE=str(file))


@pytest.fixture
def client(sidecar: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(sidecar)


@dataclass(frozen=True)
class Names:
    """Tables that exist: in one engine each, and in both."""

    accounts: str
    trades: str
    events: str


@pytest.fixture
async def names(client: SidecarClient) -> AsyncIterator[Names]:
    mark = secrets.token_hex(4)
    names = Names(f"accounts_{mark}", f"trades_{mark}", f"events_{mark}")
    merge_tree = "ENGINE = MergeTree ORDER BY id"
    for statement in (
        f"CREATE TABLE {names.accounts} (id serial PRIMARY KEY, name text)",
        f"CREATE TABLE {names.events} (id serial PRIMARY KEY, name text)",
        f"CREATE TABLE {names.trades} (id Int64, name String) {merge_tree}",
        f"CREATE TABLE {names.events} (id Int64, name String) {merge_tree}",
    ):
        await succeeded(client, statement)
    yield names
    for table, engine in (
        (names.accounts, "postgresql"),
        (names.events, "postgresql"),
        (names.trades, "clickhouse"),
        (names.events, "clickhouse"),
    ):
        await succeeded(client, f"DROP TABLE {table}", engine)


async def succeeded(client: SidecarClient, query: str, target: str | None = None) -> Reply:
    reply = await client.query(query, target)
    assert reply.status == 200, reply.body
    return reply


async def explained(client: SidecarClient, query: object) -> dict[str, object]:
    reply = await client.call("POST", "/api/v2/route", json={"query": query})
    assert reply.status == 200, reply.body
    return dict(reply.body)


async def test_reads_and_writes_go_to_the_engine_that_has_the_table(
    client: SidecarClient, names: Names
) -> None:
    await succeeded(client, f"INSERT INTO {names.accounts} (name) VALUES ('Ada')")
    await succeeded(client, f"INSERT INTO {names.trades} (id, name) VALUES (1, 'ACME')")

    here = await succeeded(client, f"SELECT name FROM {names.accounts}")
    there = await succeeded(client, f"SELECT name FROM default.{names.trades}")

    assert (here.body["data"], there.body["data"]) == ([{"name": "Ada"}], [{"name": "ACME"}])
    for reply, engine in ((here, "postgresql"), (there, "clickhouse")):
        assert reply.body["meta"]["route"] == "catalog"
        assert reply.body["meta"]["database"] == engine
        assert "fallbackFrom" not in reply.body["meta"]


async def test_what_both_have_is_decided_by_the_dialect_or_refused(
    client: SidecarClient, names: Names
) -> None:
    there = await client.query(f"SELECT count() AS n FROM {names.events} PREWHERE id > 0")
    either = await client.query(f"DELETE FROM {names.events} WHERE id = 1")
    here = await client.query(f"DELETE FROM {names.events} WHERE id = $1", params=[1])

    assert (there.body["meta"]["database"], there.body["meta"]["route"]) == (
        "clickhouse",
        "dialect",
    )
    assert (either.status, either.body["code"]) == (422, "ambiguous_route")
    assert either.body["candidates"] == ["postgresql", "clickhouse"]
    assert here.body["meta"]["database"] == "postgresql"


async def test_a_table_made_elsewhere_is_seen_when_it_is_read_again_and_one_dropped_here_at_once(
    client: SidecarClient, names: Names
) -> None:
    await succeeded(client, f"SELECT * FROM {names.trades}")

    await succeeded(client, f"DROP TABLE {names.trades}", "clickhouse")
    gone = await client.query(f"SELECT * FROM {names.trades}")
    await succeeded(client, f"CREATE TABLE {names.trades} (id Int64, name String) ENGINE = Log")

    assert gone.status == 422


async def test_a_route_is_explained_and_nothing_is_run(client: SidecarClient, names: Names) -> None:
    await succeeded(client, f"SELECT * FROM {names.accounts}")
    drop = await explained(client, f"DROP TABLE {names.accounts}")
    unsure = await explained(client, f"DROP TABLE {names.events}")
    command = await explained(client, ["GET", "k"])

    assert drop == {
        "database": "postgresql",
        "route": "catalog",
        "write": True,
        "candidates": ["postgresql"],
        "reason": f"of the SQL engines postgresql alone has {names.accounts}",
    }
    assert (unsure["database"], unsure["route"], unsure["write"]) == (None, None, True)
    assert unsure["candidates"] == ["postgresql", "clickhouse"]
    assert (command["database"], command["write"]) == ("dragonflydb", False)
    await succeeded(client, f"SELECT * FROM {names.accounts}")


async def test_an_unknown_engine_or_field_is_refused(client: SidecarClient) -> None:
    engine = {"query": "SELECT 1", "targetDatabase": "oracle"}
    unknown = await client.call("POST", "/api/v2/route", json=engine)
    field = await client.call("POST", "/api/v2/route", json={"query": "SELECT 1", "sql": ""})

    assert (unknown.status, unknown.body["code"]) == (400, "unknown_engine")
    assert (field.status, field.body["code"]) == (400, "invalid_request")


async def test_dead_engines_hold_up_no_query_that_cannot_be_told(
    connect: Connect, tmp_path: Path
) -> None:
    with starting() as start:
        client = connect(start(**nobody_there()))
        await client.query("SELECT 1")

        async def is_told_at_once() -> bool:
            reply = await client.call("POST", "/api/v2/route", json={"query": "SELECT 1"})
            return reply.status == 200 and reply.body["database"] is None

        await eventually(is_told_at_once, 5)
