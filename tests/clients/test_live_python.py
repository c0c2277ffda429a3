"""Both Python clients against a real sidecar in front of real engines, as a pod finds them."""

import asyncio
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import plan2_client
from fixtures.fake_sidecar import Either
from fixtures.fix_clients import MakeClient
from plan2_client import (
    ApiGatewayDatabaseConfig,
    Client,
    ConfigServiceDatabaseConfig,
    Operation,
    PermissionDenied,
    QueryRejected,
    ReadOnly,
    Statement,
    StreamCut,
    Unauthorized,
    VersionMismatch,
)


@pytest.fixture
async def client(make_client: MakeClient, app_environment: dict[str, str]) -> Either:
    made = make_client(environ=app_environment)
    await made(lambda c: c.ready())
    return made


@pytest.fixture
def name() -> str:
    """One that no other test has, and that a path has no place for."""
    return f"a/b ü {uuid4().hex}"


async def test_rows_and_commands(client: Either) -> None:
    rows = await client(
        lambda c: c.query("SELECT $1::bigint AS id, $2::numeric AS n", params=[2**62, "1.50"])
    )
    counted = await client(
        lambda c: c.query("SELECT toUInt64({n:UInt64}) AS n", params={"n": 2**63})
    )
    pong = await client(lambda c: c.query(["ECHO", "hé"]))

    assert rows.data == [{"id": 2**62, "n": 1.5}]
    assert (rows.row_count, rows.meta.database) == (1, "postgresql")
    assert (counted.data, counted.meta.database) == ([{"n": 2**63}], "clickhouse")
    assert (pong.data, pong.meta.route) == ("hé", "language")


async def test_a_decimal_comes_back_with_all_its_digits(
    make_client: MakeClient, app_environment: dict[str, str]
) -> None:
    exact = make_client(environ=app_environment, parse_float=Decimal)
    number = Decimal("12345678901234567890.123456789")

    result = await exact(lambda c: c.query("SELECT $1::numeric AS n", params=[number]))

    assert result.data == [{"n": number}]


async def test_a_refusal_has_its_class(client: Either) -> None:
    with pytest.raises(QueryRejected) as refusal:
        await client(lambda c: c.query("SELECT nothing FROM nowhere", target_database="postgresql"))
    with pytest.raises((ReadOnly, PermissionDenied)):
        await client(
            lambda c: c.query("CREATE TABLE t(i int)", target_database="postgresql", read_only=True)
        )

    assert refusal.value.engine_code == "42P01"
    assert refusal.value.database == "postgresql"


async def test_a_wrong_token_is_refused(
    make_client: MakeClient, app_environment: dict[str, str]
) -> None:
    stranger = make_client(url=app_environment["PLAN2_URL"], token="guessed")

    with pytest.raises(Unauthorized):
        await stranger(lambda c: c.databases())


async def test_a_route_is_explained_and_the_engines_are_told(client: Either) -> None:
    route = await client(lambda c: c.route("SELECT 1 LIMIT 1 BY 1"))
    databases = await client(lambda c: c.databases())
    health = await client(lambda c: c.health())

    assert (route.database, route.write) == ("clickhouse", False)
    assert databases["postgresql"]["configured"]
    assert not databases["weaviate"]["configured"]
    assert health["status"] == "ok"


async def test_an_answer_may_come_from_the_cache(client: Either) -> None:
    text = f"SELECT '{uuid4().hex}' AS n, clock_timestamp() AS at"

    def ask(c: Any) -> Any:
        return c.query(text, target_database="postgresql", read_only=True, cache_ttl_ms=60_000)

    first, second = await client(ask), await client(ask)

    assert (first.meta.cache, second.meta.cache) == ("miss", "hit")
    assert second.data == first.data


async def test_a_stream_has_every_row(client: Either) -> None:
    rows, end = await client.rows(
        lambda c: c.stream(
            "SELECT i FROM generate_series(1, 25000) i", target_database="postgresql"
        )
    )

    assert [row["i"] for row in rows] == list(range(1, 25001))
    assert (end.row_count, end.meta.database) == (25_000, "postgresql")


async def test_a_stream_that_fails_half_way_says_why(client: Either) -> None:
    with pytest.raises(QueryRejected) as refusal:
        await client.rows(
            lambda c: c.stream(
                "SELECT 10 / (20000 - i) AS n FROM generate_series(1, 25000) i",
                target_database="postgresql",
            )
        )

    assert not isinstance(refusal.value, StreamCut)
    assert "zero" in refusal.value.detail


async def test_leaving_a_stream_lets_the_client_go_on(client: Either) -> None:
    text = "SELECT i FROM generate_series(1, 1000000) i"

    rows, end = await client.rows(lambda c: c.stream(text, target_database="postgresql"), most=10)
    result = await client(lambda c: c.query("SELECT 1 AS one", target_database="postgresql"))

    assert (len(rows), end) == (10, None)
    assert result.data == [{"one": 1}]


async def test_a_batch_answers_each(client: Either) -> None:
    one, two, three = await client(
        lambda c: c.batch(
            [
                Statement(query="SELECT 1 AS n", target_database="postgresql"),
                Statement(query="SELECT nonsense", target_database="postgresql"),
                {"query": ["ECHO", "x"]},
            ]
        )
    )

    assert one.data == [{"n": 1}]
    assert isinstance(two, QueryRejected)
    assert three.data == "x"


async def test_the_cache(client: Either, name: str) -> None:
    assert await client(lambda c: c.cache.get(name)) is None

    await client(lambda c: c.cache.put(name, {"a": [1, None]}, ttl=60))
    await client(lambda c: c.cache.put(name, "other", namespace="n"))
    found = await client(lambda c: c.cache.get(name))
    other = await client(lambda c: c.cache.get(name, namespace="n"))
    await client(lambda c: c.cache.delete(name))

    assert found.value == {"a": [1, None]}
    assert 0 < found.ttl <= 60
    assert (other.value, other.ttl, other.degraded) == ("other", None, False)
    assert await client(lambda c: c.cache.get(name)) is None


async def test_a_saga_is_done_and_done_once(client: Either) -> None:
    table, key = f"t{uuid4().hex}", uuid4().hex
    await client(lambda c: c.query(f"CREATE TABLE {table}(n int)", target_database="postgresql"))
    insert = Operation(
        id="insert",
        query=f"INSERT INTO {table} VALUES (1)",
        target_database="postgresql",
        compensate=Statement(query=f"DELETE FROM {table}"),
    )
    cached = Operation(
        id="note",
        query=["SET", f"note:{key}", "done"],
        target_database="dragonflydb",
        depends_on=["insert"],
        compensate=Statement(query=["DEL", f"note:{key}"]),
    )

    def run(c: Any) -> Any:
        return c.cross_db([insert, cached], mode="saga", idempotency_key=key, timeout_ms=20_000)

    first, second = await client(run), await client(run)
    found = await client(lambda c: c.cross_db_get(key))

    assert (first.state, first.finished) == ("committed", True)
    assert second.id == first.id == found.id
    count = await client(
        lambda c: c.query(f"SELECT count(*) AS n FROM {table}", target_database="postgresql")
    )
    assert count.data == [{"n": 1}]
    assert await client(lambda c: c.cross_db_get(uuid4().hex)) is None


async def test_sessions(client: Either, name: str) -> None:
    await client(lambda c: c.sessions.store(name, {"user": 1}, ttl=60))
    await client(lambda c: c.sessions.store(name, {"user": 2}, durable=False))
    found = await client(lambda c: c.sessions.get(name))
    await client(lambda c: c.sessions.delete(name))

    assert (found.id, found.data) == (name, {"user": 2})
    assert 3500 < found.ttl <= 3600
    assert await client(lambda c: c.sessions.get(name)) is None


async def test_configuration_with_versions(client: Either, name: str) -> None:
    first = await client(lambda c: c.config.put(name, "k", 1, create_only=True, actor="me"))
    second = await client(lambda c: c.config.put(name, "k", 2, if_match=first))
    with pytest.raises(VersionMismatch):
        await client(lambda c: c.config.put(name, "k", 3, if_match=first))
    with pytest.raises(VersionMismatch):
        await client(lambda c: c.config.put(name, "k", 3, create_only=True))
    stored = await client(lambda c: c.config.get(name, "k"))
    await client(lambda c: c.config.log_change(name, "k", 0, {"elsewhere": True}))
    await client(lambda c: c.config.cache(name, "k", "quick", ttl=60))
    cached = await client(lambda c: c.config.get(name, "k"))
    newest = await client(lambda c: c.config.history(name, "k", limit=2))
    oldest = await client(lambda c: c.config.history(name, "k", cursor=newest.next))
    await client(lambda c: c.config.delete(name, "k"))

    assert (stored.value, stored.version, stored.source) == (2, second, "postgresql")
    assert (cached.value, cached.version, cached.source) == ("quick", None, "cache")
    assert [item["newValue"] for item in newest.items] == [{"elsewhere": True}, 2]
    assert [(item["newValue"], item["actor"]) for item in oldest.items] == [(1, "me")]
    assert oldest.next is None


async def test_rate_limits(client: Either, name: str) -> None:
    decisions = [
        await client(lambda c: c.rate_limit.check(name, window_ms=60_000, limit=2))
        for _ in range(3)
    ]
    peeked = await client(lambda c: c.rate_limit.check(name, window_ms=60_000, limit=2, peek=True))
    await client(lambda c: c.rate_limit.reset(name))
    fresh = await client(lambda c: c.rate_limit.check(name, window_ms=60_000, limit=2))

    assert [decision.allowed for decision in decisions] == [True, True, False]
    assert decisions[2].total_hits > 2
    assert decisions[2].retry_after_ms > 0
    assert set(decisions[2].headers) == {"RateLimit", "RateLimit-Policy", "Retry-After"}
    assert decisions[0].headers["RateLimit-Policy"] == '"default";q=2;w=60'
    assert not peeked.allowed
    assert fresh.allowed


async def test_analytics(client: Either, name: str) -> None:
    served = {"method": "GET", "path": name, "status": 503, "durationMs": 12.5, "clientId": "c"}
    assert await client(lambda c: c.analytics.log([served, {**served, "status": 200}])) == 2

    async with asyncio.timeout(30):
        while True:
            page = await client(lambda c: c.analytics.summary(since="5m", limit=1000))
            found = [item for item in page.items if item["path"] == name]
            if found:
                break
            await asyncio.sleep(0.3)

    assert (found[0]["count"], found[0]["errors"]) == (2, 1)


async def test_the_registry_and_routes(client: Either, name: str) -> None:
    await client(lambda c: c.registry.register(name, "1", "http://a", metadata={"zone": 1}, ttl=60))
    await client(lambda c: c.registry.heartbeat(name, "2", "http://b"))
    service = await client(lambda c: c.registry.get(name))
    listed = await client(lambda c: c.registry.list(limit=1000))
    await client(lambda c: c.registry.remove(name, "1"))
    await client(lambda c: c.registry.remove(name, "2"))
    await client(lambda c: c.routes.put(name, {"to": "x"}, ttl=60))
    route = await client(lambda c: c.routes.get(name))
    await client(lambda c: c.routes.delete(name))

    assert [instance["url"] for instance in service.instances] == ["http://a", "http://b"]
    assert name in [item["name"] for item in listed.items]
    assert await client(lambda c: c.registry.get(name)) is None
    assert route == {"to": "x"}
    assert await client(lambda c: c.routes.get(name)) is None


async def test_a_service_written_before_changes_one_import(
    app_environment: dict[str, str], name: str
) -> None:
    client = Client(environ=app_environment)
    async with ConfigServiceDatabaseConfig(client) as config:
        gateway = ApiGatewayDatabaseConfig(client)
        await config.storeConfig(name, "theme", {"dark": True})
        await config.logConfigChange(name, "theme", None, {"dark": True})
        stored = await config.getConfig(name, "theme")
        await config.cacheConfig(name, "theme", {"dark": False}, 60)
        await gateway.storeSession(name, {"user": 1}, 60)

        assert stored == {"dark": True}
        assert await config.getConfig(name, "theme") == {"dark": False}
        assert len((await config.getConfigHistory(name, "theme")).items) == 2
        assert await config.getConfig(name, "nothing") is None
        assert await gateway.getSession(name) == {"user": 1}
        assert (await gateway.checkRateLimit(name, 60_000, 1)).allowed
        assert not (await gateway.checkRateLimit(name, 60_000, 1)).allowed
        assert await gateway.logApiRequest({"method": "GET", "path": "/", "status": 200}) == 1
        assert (await config.healthCheck())["status"] == "ok"


def test_a_forked_worker_does_not_speak_into_its_parents_connections(
    app_environment: dict[str, str],
) -> None:
    script = """
import os
from plan2_client import SyncClient
client = SyncClient()
client.query("SELECT 0 AS n", target_database="postgresql")
workers = []
for worker in range(4):
    pid = os.fork()
    if pid == 0:
        for n in range(50):
            asked = worker * 1000 + n
            answer = client.query("SELECT $1::int AS n", params=[asked])
            assert answer.data == [{"n": asked}], answer
        os._exit(0)
    workers.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in workers] == [0] * 4
assert client.query("SELECT 1 AS n", target_database="postgresql").data == [{"n": 1}]
"""
    paths = {"PYTHONPATH": str(Path(plan2_client.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script], env={**app_environment, **paths}, check=True)
