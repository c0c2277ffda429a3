"""The sidecar as a process in front of a real PostgreSQL: answers, rotation, a clean end."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import (
    Connect,
    SidecarClient,
    SidecarProcess,
    Start,
    eventually,
)
from plan2_contract import connection
from plan2_contract.connection import Document, Engines, Login, Sql


@pytest.fixture
def sidecar(start_sidecar: Start, postgresql: EngineServer) -> SidecarProcess:
    return start_sidecar(
        POSTGRES_HOST=postgresql.host,
        POSTGRES_PORT=str(postgresql.port),
        POSTGRES_DB="app",
        POSTGRES_USER=postgresql.admin_user,
        POSTGRES_PASSWORD=postgresql.admin_password,
    )


@pytest.fixture
def client(sidecar: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(sidecar)


@pytest.fixture
async def admin(postgresql: EngineServer) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(postgresql.url)
    yield opened
    await opened.close()


async def role(admin: asyncpg.Connection) -> Login:
    login = Login(username=f"app_{secrets.token_hex(4)}", password=secrets.token_hex(8))
    await admin.execute(f"CREATE ROLE {login.username} LOGIN PASSWORD '{login.password}'")
    # Provisioning, tested on the same server, takes the right to connect away from PUBLIC.
    await admin.execute(f"GRANT CONNECT ON DATABASE app TO {login.username}")
    return login


def write_connection(file: Path, server: EngineServer, login: Login) -> None:
    document = Document(
        version=1,
        engines=Engines(
            postgresql=Sql(host=server.host, port=server.port, database="app", rw=login)
        ),
    )
    fresh = file.with_suffix(".new")
    fresh.write_bytes(connection.encode(document))
    fresh.rename(file)


async def test_a_query_is_answered_with_rows_and_where_they_came_from(
    client: SidecarClient,
) -> None:
    reply = await client.query("SELECT $1::int AS id, 'a' AS name", "postgres", params=[42])

    assert reply.status == 200
    assert reply.body["data"] == [{"id": 42, "name": "a"}]
    assert reply.body["rowCount"] == 1
    meta = reply.body["meta"]
    assert meta.pop("tookUs") > 0
    assert meta == {
        "database": "postgresql",
        "route": "target",
        "cache": "off",
        "degraded": False,
        "attempts": 1,
    }


async def test_a_query_is_routed_by_its_dialect(client: SidecarClient) -> None:
    reply = await client.query("SELECT $1::int AS id", params=[1])

    assert (reply.status, reply.body["meta"]["route"]) == (200, "dialect")


@pytest.mark.parametrize(
    ("query", "members", "status", "code"),
    [
        ("SELECT $1::int", {"params": []}, 400, "parameter_mismatch"),
        ("SELECT $1::int", {"params": [1, 2]}, 400, "parameter_mismatch"),
        ("SELECT 1", {"params": {"a": 1}}, 400, "parameter_mismatch"),
        ("SELECT 1; SELECT 2", {}, 400, "multiple_statements"),
        ("SELEC 1", {}, 422, "query_rejected"),
        ("SELECT * FROM no_such_table", {}, 422, "query_rejected"),
        ("CREATE TABLE x (a int)", {"options": {"readOnly": True}}, 403, "read_only"),
    ],
    ids=["missing", "too many", "object", "two", "syntax", "table", "read only"],
)
async def test_a_query_the_engine_refuses_is_the_callers_to_mend(
    client: SidecarClient, query: str, members: dict[str, object], status: int, code: str
) -> None:
    reply = await client.query(query, "postgresql", **members)

    assert (reply.status, reply.body["code"]) == (status, code)
    assert reply.body["database"] == "postgresql"


async def test_rows_beyond_the_limit_are_left_out_and_it_says_so(client: SidecarClient) -> None:
    reply = await client.query(
        "SELECT * FROM generate_series(1, 10) AS n", "postgresql", options={"maxRows": 3}
    )

    assert len(reply.body["data"]) == 3
    assert reply.body["meta"]["truncated"] is True


async def test_v1_answers_as_it_always_did(client: SidecarClient) -> None:
    reply = await client.call(
        "POST", "/api/v1/query", json={"sql": "SELECT $1::text AS a, 2 AS b", "params": ["x"]}
    )

    assert reply.body == {
        "rows": [{"a": "x", "b": 2}],
        "rowCount": 1,
        "fields": [{"name": "a"}, {"name": "b"}],
    }


@pytest.mark.parametrize("by", ["header", "body"])
async def test_the_smaller_deadline_wins_and_is_kept(client: SidecarClient, by: str) -> None:
    header, body = ("200", 5000) if by == "header" else ("5000", 200)
    started = time.monotonic()

    reply = await client.call(
        "POST",
        "/api/v2/query",
        json={
            "query": "SELECT pg_sleep(10)",
            "targetDatabase": "postgresql",
            "options": {"timeoutMs": body},
        },
        headers={"X-Deadline-Ms": header},
    )

    assert (reply.status, reply.body["code"]) == (504, "deadline_exceeded")
    assert reply.body["retryable"] is True
    # Between what the smaller says and what the larger would allow.
    assert time.monotonic() - started < 4


async def test_a_write_that_ran_out_of_time_is_not_to_be_tried_again(
    client: SidecarClient,
) -> None:
    reply = await client.query(
        "CREATE TABLE never_made AS SELECT 1 AS n FROM pg_sleep(10)",
        "postgresql",
        options={"timeoutMs": 200},
    )

    assert (reply.status, reply.body["retryable"]) == (504, False)


async def test_a_caller_who_hangs_up_ends_the_work_on_the_server(
    client: SidecarClient, admin: asyncpg.Connection
) -> None:
    mark = f"hang up {secrets.token_hex(4)}"
    query = f"SELECT pg_sleep(30) /* {mark} */"
    call = asyncio.create_task(client.query(query, "postgresql", options={"timeoutMs": 60_000}))

    async def running() -> int:
        return await admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1"
            " AND pid <> pg_backend_pid()",
            f"%{mark}%",
        )

    async def ended() -> bool:
        return not await running()

    await eventually(running)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call

    await eventually(ended, seconds=5)


async def test_calls_under_way_finish_when_it_is_told_to_stop(
    sidecar: SidecarProcess, client: SidecarClient
) -> None:
    under_way = [
        asyncio.create_task(client.query("SELECT pg_sleep(1.5), 7 AS n", "postgresql"))
        for _ in range(3)
    ]
    await asyncio.sleep(0.6)

    stopped = asyncio.create_task(asyncio.to_thread(sidecar.stop))
    await asyncio.sleep(0.3)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", sidecar.port)
    replies = await asyncio.gather(*under_way)

    assert [(reply.status, reply.body["data"][0]["n"]) for reply in replies] == [(200, 7)] * 3
    assert await stopped == 0
    assert "Traceback" not in sidecar.log.read_text()


async def test_a_rotated_connection_is_taken_over_without_a_failed_call(
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    admin: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    old, new = await role(admin), await role(admin)
    file = tmp_path / "connection.json"
    write_connection(file, postgresql, old)
    client = connect(start_sidecar(PLAN2_CONNECTION_FILE=str(file)))
    statuses: list[int] = []
    users: list[str] = []
    over = asyncio.Event()

    async def keep_calling() -> None:
        while not over.is_set():
            reply = await client.query("SELECT current_user AS who, pg_sleep(0.01)", "postgresql")
            statuses.append(reply.status)
            users.append(reply.body["data"][0]["who"])

    async def taken_over() -> bool:
        return new.username in users

    async def left() -> bool:
        connected = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
        return await admin.fetchval(connected, old.username) == 0

    callers = [asyncio.create_task(keep_calling()) for _ in range(8)]
    await asyncio.sleep(0.5)
    write_connection(file, postgresql, new)
    await eventually(taken_over)
    await asyncio.sleep(0.5)
    over.set()
    await asyncio.gather(*callers)

    assert set(statuses) == {200}
    assert users[0] == old.username
    assert users[-1] == new.username
    await eventually(left)


async def test_a_refused_password_is_looked_up_again_before_the_caller_hears_of_it(
    start_sidecar: Start,
    connect: Connect,
    postgresql: EngineServer,
    admin: asyncpg.Connection,
    tmp_path: Path,
) -> None:
    login = await role(admin)
    file = tmp_path / "connection.json"
    write_connection(file, postgresql, Login(username=login.username, password="outdated"))
    client = connect(start_sidecar(PLAN2_CONNECTION_FILE=str(file)))
    refused = await client.query("SELECT 1", "postgresql")

    write_connection(file, postgresql, login)
    reply = await client.query("SELECT 1", "postgresql")

    assert (refused.status, refused.body["code"]) == (503, "engine_auth_failed")
    assert reply.status == 200


async def test_health_and_databases_tell_of_an_engine_that_is_up(client: SidecarClient) -> None:
    await client.query("SELECT 1", "postgresql")

    health = await client.get("/api/v2/health/all?strict=1")
    databases = await client.get("/api/v2/databases")

    assert (health.status, health.body["status"]) == (200, "ok")
    assert health.body["engines"]["postgresql"]["state"] == "up"
    assert health.body["engines"]["postgresql"]["breaker"] == "closed"
    assert health.body["engines"]["postgresql"]["lastOk"].endswith("Z")
    sql = databases.body["engines"]["postgresql"]
    assert sql["status"] == "up"
    assert sql["version"]
    assert sql["latency"]["p50Ms"] > 0
    assert sql["pool"]["size"] >= 1


async def test_a_required_engine_makes_it_ready_once_reached(
    start_sidecar: Start, connect: Connect, postgresql: EngineServer
) -> None:
    client = connect(
        start_sidecar(
            POSTGRES_HOST=postgresql.host,
            POSTGRES_PORT=str(postgresql.port),
            POSTGRES_DB="app",
            POSTGRES_PASSWORD=postgresql.admin_password,
            PLAN2_REQUIRED_ENGINES="postgresql",
        )
    )

    async def ready() -> bool:
        return (await client.get("/readyz")).status == 200

    await eventually(ready, seconds=5)


async def test_an_engine_that_comes_back_is_used_again(
    client: SidecarClient, postgresql: EngineServer
) -> None:
    async def answers() -> bool:
        return (await client.query("SELECT 1", "postgresql")).status == 200

    assert await answers()

    await asyncio.to_thread(postgresql.stop)
    down = [await client.query("SELECT 1", "postgresql") for _ in range(7)]
    await asyncio.to_thread(postgresql.start)

    assert {reply.status for reply in down} == {503}
    await eventually(answers)


async def test_reads_notice_nothing_when_every_idle_connection_is_ended(
    client: SidecarClient, admin: asyncpg.Connection
) -> None:
    await asyncio.gather(*(client.query("SELECT 1 AS n", "postgresql") for _ in range(3)))

    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    replies = [await client.query("SELECT 1 AS n", "postgresql") for _ in range(3)]

    assert [(reply.status, reply.body.get("detail")) for reply in replies] == [(200, None)] * 3


async def test_a_table_that_is_locked_holds_up_no_read_of_another(
    client: SidecarClient, admin: asyncpg.Connection
) -> None:
    await admin.execute(
        "DROP TABLE IF EXISTS plan2_held, plan2_free;"
        "CREATE TABLE plan2_held AS SELECT 1 AS n; CREATE TABLE plan2_free AS SELECT 2 AS n"
    )

    async def read(table: str) -> tuple[int, object]:
        reply = await client.query(f"SELECT n FROM {table} WHERE n > $1", "postgresql", params=[0])
        assert reply.status == 200, reply.body
        return reply.body["meta"]["attempts"], reply.body["data"]

    for _ in range(60):
        # So often that they are known to be short.
        assert await read("plan2_held") == (1, [{"n": 1}])
        assert await read("plan2_free") == (1, [{"n": 2}])
    async with admin.transaction():
        await admin.execute("LOCK TABLE plan2_held")
        held = [asyncio.create_task(read("plan2_held")) for _ in range(5)]
        # Behind those that wait, they would get no answer as long as the lock is held.
        free = await asyncio.gather(*(read("plan2_free") for _ in range(20)))
        ended = [task.done() for task in held]

    assert free == [(1, [{"n": 2}])] * 20
    assert ended == [False] * 5
    assert await asyncio.gather(*held) == [(1, [{"n": 1}])] * 5
