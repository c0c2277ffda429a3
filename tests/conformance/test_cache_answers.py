"""`options.cache` over HTTP: hits, what writes make of them in both sidecars, failures."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from fixtures.engine_server import EngineServer
from fixtures.fix_engines import make_postgresql, make_redis, run
from fixtures.fix_sidecar import (
    Connect,
    Reply,
    SidecarClient,
    SidecarProcess,
    Start,
    eventually,
    starting,
)
from fixtures.fix_sidecar_services import where

PG = "postgresql"


@pytest.fixture(scope="module")
def sidecars(
    postgresql: EngineServer, dragonflydb: EngineServer, clickhouse: EngineServer
) -> Iterator[list[SidecarProcess]]:
    with starting() as start:
        variables = where(postgresql, dragonflydb, clickhouse)
        yield [start(**variables), start(**variables)]


@pytest.fixture
def one(sidecars: list[SidecarProcess], connect: Connect) -> SidecarClient:
    return connect(sidecars[0])


@pytest.fixture
def other(sidecars: list[SidecarProcess], connect: Connect) -> SidecarClient:
    return connect(sidecars[1])


async def made(client: SidecarClient, count: int = 1, also: str = "") -> list[str]:
    """New tables of one row; the sidecars know them, and that nothing depends on them."""
    names = [f"t{secrets.token_hex(6)}" for _ in range(count)]
    for name in names:
        await done(client, f"CREATE TABLE {name} (id int PRIMARY KEY, n int){also}")
        await done(client, f"INSERT INTO {name} VALUES (1, 1)")
    return names


async def done(client: SidecarClient, statement: str, target: str = PG) -> None:
    reply = await client.query(statement, target)
    assert reply.status == 200, reply


async def cached(client: SidecarClient, query: str, ttl_ms: int = 60_000) -> Reply:
    reply = await client.query(query, PG, options={"cache": {"ttlMs": ttl_ms}})
    assert reply.status == 200, reply
    return reply


def outcome(reply: Reply) -> tuple[int, str]:
    return reply.body["data"][0]["n"], reply.body["meta"]["cache"]


async def settled(client: SidecarClient, query: str) -> None:
    """The answer is kept."""
    await cached(client, query)
    await cached(client, query)


async def test_an_answer_is_kept_for_both_sidecars(
    one: SidecarClient, other: SidecarClient
) -> None:
    [table] = await made(one)
    query = f"SELECT n, 1.50::numeric AS exact FROM {table}"
    await settled(one, query)
    await settled(other, query)

    again, there = await cached(one, query), await cached(other, query)
    plain = await one.query(query, PG)

    assert (outcome(again), outcome(there)) == ((1, "hit"), (1, "hit"))
    assert again.body["data"] == plain.body["data"]
    assert again.body["rowCount"] == 1
    assert (again.body["meta"]["attempts"], again.body["meta"]["degraded"]) == (0, False)
    assert plain.body["meta"]["cache"] == "off"


async def test_a_write_through_one_sidecar_is_seen_in_both(
    one: SidecarClient, other: SidecarClient
) -> None:
    [table] = await made(one)
    query = f"SELECT n FROM {table}"
    await settled(one, query)
    await settled(other, query)

    for number in range(2, 12):
        await done(one, f"UPDATE {table} SET n = {number}")
        assert outcome(await cached(one, query))[0] == number

        async def seen(number: int = number) -> bool:
            return outcome(await cached(other, query))[0] == number

        # 100 ms is the promise; a loaded machine gets five times that.
        await eventually(seen, seconds=0.5, every=0.005)


@pytest.mark.parametrize("way", ["v1", "batch", "outbox", "saga", "atomic"])
async def test_every_way_to_write_is_seen_in_both(
    one: SidecarClient, other: SidecarClient, way: str
) -> None:
    [table] = await made(one)
    query = f"SELECT n FROM {table}"
    await settled(one, query)
    await settled(other, query)
    write = f"UPDATE {table} SET n = 2"
    calls: dict[str, tuple[str, object]] = {
        "v1": ("/api/v1/query", {"query": write}),
        "batch": ("/api/v2/batch", {"queries": [{"query": write, "targetDatabase": PG}]}),
    }
    step = {"id": "a", "query": write, "targetDatabase": PG}
    cross = ("/api/v2/cross-db", {"mode": way, "operations": [step]})
    path, body = calls.get(way, cross)

    reply = await one.call("POST", path, json=body)

    assert reply.status == 200, reply
    assert outcome(await cached(one, query))[0] == 2

    async def seen() -> bool:
        return outcome(await cached(other, query))[0] == 2

    await eventually(seen, seconds=0.5, every=0.005)


async def test_a_write_leaves_answers_about_other_tables_alone(
    one: SidecarClient, other: SidecarClient
) -> None:
    mine, theirs = await made(one, 2)
    query = f"SELECT n FROM {mine}"
    await settled(one, query)
    await settled(other, query)

    await done(other, f"UPDATE {theirs} SET n = 5")
    await asyncio.sleep(0.5)

    assert outcome(await cached(one, query)) == (1, "hit")
    assert outcome(await cached(other, query)) == (1, "hit")


@pytest.mark.parametrize("seed", ["view", "trigger", "cascade", "function", "partition"])
async def test_what_depends_on_a_table_in_secret_is_never_old(
    one: SidecarClient, other: SidecarClient, seed: str
) -> None:
    table, also = await made(one, 2)
    reads = {
        "view": f"SELECT n FROM v_{table}",
        "trigger": f"SELECT n FROM {also}",
        "cascade": f"SELECT count(*)::int + 1 AS n FROM c_{table}",
        "function": f"SELECT f_{table}() AS n",
        "partition": f"SELECT coalesce(max(n), 1) AS n FROM p_{table}_1",
    }
    prepares = {
        "view": [f"CREATE VIEW v_{table} AS SELECT n FROM {table}"],
        "trigger": [
            f"CREATE FUNCTION g_{table}() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN UPDATE {also} SET n = NEW.n; RETURN NEW; END $$",
            f"CREATE TRIGGER r_{table} AFTER UPDATE ON {table}"
            f" FOR EACH ROW EXECUTE FUNCTION g_{table}()",
        ],
        "cascade": [
            f"CREATE TABLE c_{table} (id int REFERENCES {table} ON DELETE CASCADE)",
        ],
        "function": [
            f"CREATE FUNCTION f_{table}() RETURNS int LANGUAGE sql AS $$ SELECT n FROM {table} $$"
        ],
        "partition": [
            f"CREATE TABLE p_{table} (n int) PARTITION BY LIST (n)",
            f"CREATE TABLE p_{table}_1 PARTITION OF p_{table} FOR VALUES IN (2)",
        ],
    }
    changes = {
        "cascade": f"DELETE FROM {table}",
        "partition": f"INSERT INTO p_{table} VALUES (2)",
    }
    for statement in prepares[seed]:
        await done(one, statement)
    if seed == "cascade":
        await done(one, f"INSERT INTO c_{table} VALUES (1)")
    read_only = {"cache": {"ttlMs": 60_000}, "readOnly": True}
    await one.query(reads[seed], PG, options=read_only)
    before = (await other.query(reads[seed], PG, options=read_only)).body

    await done(one, changes.get(seed, f"UPDATE {table} SET n = 2"))

    async def seen() -> bool:
        now = (await other.query(reads[seed], PG, options=read_only)).body
        return bool(now["data"] != before["data"])

    await eventually(seen, seconds=0.5, every=0.01)


async def test_a_definition_is_noticed_by_both(one: SidecarClient, other: SidecarClient) -> None:
    [table] = await made(one)
    query = f"SELECT * FROM {table}"
    await settled(other, query)

    await done(one, f"ALTER TABLE {table} ADD COLUMN more int DEFAULT 7")

    async def seen() -> bool:
        return "more" in (await cached(other, query)).body["data"][0]

    await eventually(seen, seconds=0.5, every=0.01)


async def test_clickhouse_answers_are_kept_and_renewed(
    one: SidecarClient, other: SidecarClient
) -> None:
    table = f"t{secrets.token_hex(6)}"
    await done(one, f"CREATE TABLE {table} (n UInt32) ENGINE = MergeTree ORDER BY n", "clickhouse")
    await done(one, f"INSERT INTO {table} VALUES (1)", "clickhouse")
    options = {"cache": {"ttlMs": 60_000}}

    async def total(client: SidecarClient) -> tuple[int, str]:
        reply = await client.query(
            f"SELECT sum(n) AS n FROM {table}", "clickhouse", options=options
        )
        return outcome(reply)

    await total(one)
    assert await total(other) == (1, "hit")

    await done(one, f"INSERT INTO {table} VALUES (2)", "clickhouse")

    async def seen() -> bool:
        return (await total(other))[0] == 3

    await eventually(seen, seconds=0.5, every=0.01)


async def test_what_may_write_is_not_cached(one: SidecarClient) -> None:
    [table] = await made(one)
    options = {"cache": {"ttlMs": 1000}}

    refused = await one.query(f"UPDATE {table} SET n = 9", PG, options=options)
    read = await one.query(f"SELECT n FROM {table}", PG)

    assert (refused.status, refused.body["code"]) == (400, "invalid_request")
    assert "options.cache" in refused.body["detail"]
    assert read.body["data"] == [{"n": 1}]
    for ttl in (0, -1, 31_536_000_001):
        wrong = await one.query("SELECT 1", PG, options={"cache": {"ttlMs": ttl}})
        assert (wrong.status, wrong.body["code"]) == (400, "invalid_request")


async def test_the_store_itself_is_asked_each_time(one: SidecarClient) -> None:
    key = secrets.token_hex(6)
    for value in ("1", "2"):
        await one.query(["SET", key, value], "dragonflydb")
        reply = await one.query(["GET", key], "dragonflydb", options={"cache": {"ttlMs": 60_000}})
        assert (reply.body["data"], reply.body["meta"]["cache"]) == (value, "off")


async def test_a_thousand_misses_cause_one_query(one: SidecarClient) -> None:
    [table] = await made(one)
    # Two queries would give two times.
    query = f"SELECT extract(epoch FROM clock_timestamp()) AS n, pg_sleep(0.5) FROM {table}"
    options = {"cache": {"ttlMs": 60_000}, "readOnly": True}

    replies = await asyncio.gather(*(one.query(query, PG, options=options) for _ in range(1000)))

    assert {reply.status for reply in replies} == {200}
    assert len({str(reply.body["data"]) for reply in replies}) == 1


async def test_a_stale_answer_stands_in_for_an_engine_that_is_down(
    start_sidecar: Start, connect: Connect, dragonflydb: EngineServer
) -> None:
    with run(make_postgresql()) as server:
        client = connect(start_sidecar(**where(server, dragonflydb)))
        [table] = await made(client)
        query = f"SELECT n FROM {table}"
        await cached(client, query, 1000)
        server.stop()
        await asyncio.sleep(2.2)

        stale = await cached(client, query, 1000)
        other = await client.query(f"SELECT n + 1 FROM {table}", PG)
        server.start()

    meta = stale.body["meta"]
    assert (outcome(stale), meta["degraded"], meta["fallbackFrom"]) == ((1, "stale"), True, PG)
    assert other.status == 503


async def test_without_a_store_an_answer_is_kept_until_the_next_write(
    start_sidecar: Start, connect: Connect, postgresql: EngineServer
) -> None:
    client = connect(start_sidecar(**where(postgresql)))
    [table] = await made(client)
    query = f"SELECT n FROM {table}"

    outcomes = [outcome(await cached(client, query)) for _ in range(3)]
    await done(client, f"UPDATE {table} SET n = 2")

    # A second at most, and the machine may be slow.
    assert outcomes[0] == (1, "miss")
    assert (1, "hit") in outcomes[1:]
    assert outcome(await cached(client, query)) == (2, "miss")


async def test_while_the_store_is_away_a_sidecar_sees_its_own_writes(
    start_sidecar: Start, connect: Connect, postgresql: EngineServer
) -> None:
    with run(make_redis()) as store:
        variables = where(postgresql) | {
            "DRAGONFLY_HOST": store.host,
            "DRAGONFLY_PORT": str(store.port),
            "DRAGONFLY_PASSWORD": store.admin_password,
        }
        one, other = (connect(start_sidecar(**variables)) for _ in range(2))
        [table] = await made(one)
        query = f"SELECT n FROM {table}"
        await settled(one, query)
        await settled(other, query)
        store.stop()

        for number in range(2, 6):
            await done(one, f"UPDATE {table} SET n = {number}")
            assert outcome(await cached(one, query))[0] == number

        async def seen() -> bool:
            return outcome(await cached(other, query))[0] == 5

        await eventually(seen, seconds=5)
        store.start()
        for _ in range(40):
            assert outcome(await cached(one, query))[0] == 5
            assert outcome(await cached(other, query))[0] == 5
            await asyncio.sleep(0.05)
