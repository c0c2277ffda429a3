"""PostgreSQL asked without a task: answers as `execute` has them, and nothing outlives a caller."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import pytest

from conformance.engine_cases import POSTGRESQL, connection, opened, plain, run
from fixtures.fix_engines import EngineServer
from plan2_contract.engines import Engine
from plan2_sidecar import engines
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import EngineClient
from plan2_sidecar.engines import postgresql_internals as internals
from plan2_sidecar.engines.base import Cancel
from plan2_sidecar.engines.postgresql_statements import Statement
from plan2_sidecar.errors import DeadlineExceeded, EngineUnavailable, QueryRejected
from plan2_sidecar.query import Query, Result

SLEEP = "SELECT pg_sleep($1), 'plan2-at-once' AS mark"


@pytest.fixture
async def client(postgresql: EngineServer) -> AsyncIterator[EngineClient]:
    async with opened(Engine.POSTGRESQL, connection(POSTGRESQL, postgresql)) as client:
        await ask(client, "DROP TABLE IF EXISTS plan2_at_once")
        await ask(client, "CREATE TABLE plan2_at_once (id int PRIMARY KEY, name text)")
        await ask(client, "INSERT INTO plan2_at_once VALUES (1, 'ü'), (2, NULL)")
        yield client


async def ask(client: EngineClient, text: str, *params: Any, **options: Any) -> Result:
    return await run(client, Query(query=text, params=list(params), **options))


class Begun:
    """A call that was begun at once, or was not."""

    def __init__(
        self, client: EngineClient, text: str, *params: Any, seconds: float = 10.0, **options: Any
    ) -> None:
        self._told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        query = Query(query=text, params=list(params), **options)
        own: Any = engines.opened(client)
        self.cancel: Cancel | None = own.begin(
            query, Deadline.after(seconds), self._told.set_result
        )

    async def outcome(self) -> Any:
        async with asyncio.timeout(10):
            return await self._told


@pytest.mark.parametrize("max_rows", [None, 2, 1], ids=["all", "just-fits", "truncated"])
@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "awaited"])
async def test_rows_that_come_alone_are_asked_for_alone_and_answered_alike(
    client: EngineClient, at_once: bool, max_rows: int | None
) -> None:
    text = "SELECT id, name FROM plan2_at_once WHERE id >= $1 ORDER BY id"

    async def asked(least: int) -> Result:
        if not at_once:
            return await ask(client, text, least, max_rows=max_rows)
        begun = Begun(client, text, least, max_rows=max_rows)
        if begun.cancel is None:
            return await ask(client, text, least, max_rows=max_rows)
        return cast(Result, await begun.outcome())

    def ready() -> Statement:
        (session, _), *_ = engines.opened(client)._pool._idle["rw"]
        return cast(Statement, session.statements[text, max_rows])

    first = [await asked(least) for least in (1, 2, 3)]
    for _ in range(6):
        await asked(2)
    assert ready().by_row is None
    await asked(2)
    assert ready().by_row is not None

    assert [await asked(least) for least in (2, 3, 1)] == [first[1], first[2], first[0]]

    assert ready().by_row is None
    for _ in range(20):
        assert await asked(2) == first[1]
    assert ready().by_row is None


@pytest.mark.parametrize(
    ("text", "params", "options"),
    [
        ("SELECT id, name FROM plan2_at_once ORDER BY id", (), {}),
        ("SELECT id, name FROM plan2_at_once WHERE id = $1", ("2",), {}),
        ("SELECT id, name FROM plan2_at_once WHERE id = $1", (3,), {}),
        ("SELECT id, name FROM plan2_at_once ORDER BY id", (), {"max_rows": 1}),
        ("SELECT id, name FROM plan2_at_once ORDER BY id", (), {"max_rows": 2}),
        ("SELECT ROW(1, 'a') AS pair, ARRAY[1.50] AS list, NULL::json AS none", (), {}),
    ],
    ids=["rows", "one", "none", "truncated", "just-fits", "composite"],
)
async def test_it_answers_what_execute_does(
    client: EngineClient, text: str, params: tuple[Any, ...], options: dict[str, Any]
) -> None:
    expected = await ask(client, text, *params, **options)

    answered = await Begun(client, text, *params, **options).outcome()

    assert answered == expected
    assert client.pool()["inUse"] == 0


@pytest.mark.parametrize(
    ("text", "params", "options"),
    [
        ("SELECT 'never seen'", (), {}),
        ("SHOW server_version", (), {}),
        ("SET application_name = 'other'", (), {}),
        ("SELECT set_config('a.b', 'c', false)", (), {}),
        ("SELECT id FROM plan2_at_once WHERE id = $1", (1, 2), {}),
        ("SELECT id FROM plan2_at_once WHERE id = $1", ([],), {}),
        ("SELECT id FROM plan2_at_once WHERE id = $1", (1,), {"read_only": True}),
        ("SELECT id FROM plan2_at_once WHERE id = $1", (1,), {"seconds": 0.0}),
    ],
    ids=["new", "fetched", "set", "set-config", "too-many", "unfit", "read-only", "too-late"],
)
async def test_what_takes_more_than_a_round_trip_is_left_alone(
    client: EngineClient, text: str, params: tuple[Any, ...], options: dict[str, Any]
) -> None:
    await ask(client, "SELECT id FROM plan2_at_once WHERE id = $1", 1)
    if "never" not in text and "$1" not in text:
        await ask(client, text)

    in_use = client.pool()["inUse"]

    assert Begun(client, text, *params, **options).cancel is None

    assert client.pool()["inUse"] == in_use
    assert plain(await ask(client, "SELECT id FROM plan2_at_once WHERE id = $1", 1)) == [{"id": 1}]


async def test_what_the_server_refuses_is_a_problem(client: EngineClient) -> None:
    await ask(client, "SELECT 1 / $1::int AS n", 1)

    problem = await Begun(client, "SELECT 1 / $1::int AS n", 0).outcome()

    assert isinstance(problem, QueryRejected)
    assert (problem.database, problem.engine_code) == (Engine.POSTGRESQL, "22012")
    assert plain(await ask(client, "SELECT 1 / $1::int AS n", 1)) == [{"n": 1}]


async def test_a_table_changed_by_another_session_is_seen(
    client: EngineClient, postgresql: EngineServer
) -> None:
    await ask(client, "SELECT * FROM plan2_at_once WHERE id = 1")
    other = await asyncpg.connect(postgresql.url)
    await other.execute("ALTER TABLE plan2_at_once ADD COLUMN more int DEFAULT 5")
    await other.close()

    result = await Begun(client, "SELECT * FROM plan2_at_once WHERE id = 1").outcome()

    assert plain(result) == [{"id": 1, "name": "ü", "more": 5}]


@pytest.mark.parametrize("end", ["deadline", "caller"])
async def test_the_servers_work_ends_with_the_call(
    client: EngineClient, postgresql: EngineServer, end: str
) -> None:
    await ask(client, SLEEP, 0)
    begun = Begun(client, SLEEP, 30, seconds=0.2 if end == "deadline" else 10)
    assert begun.cancel is not None

    if end == "caller":
        await asyncio.sleep(0.2)
        begun.cancel()
    outcome = await begun.outcome()

    assert isinstance(outcome, DeadlineExceeded if end == "deadline" else asyncio.CancelledError)
    assert await _running(postgresql) == 0
    assert plain(await ask(client, SLEEP, 0)) == [{"pg_sleep": "", "mark": "plan2-at-once"}]


async def test_a_connection_that_broke_is_told_and_not_used_again(
    client: EngineClient, postgresql: EngineServer
) -> None:
    await ask(client, SLEEP, 0)
    begun = Begun(client, SLEEP, 30)
    other = await asyncpg.connect(postgresql.url)
    await asyncio.sleep(0.2)
    ended = await other.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE query LIKE '%plan2-at-once%' AND state = 'active' AND pid <> pg_backend_pid()"
    )
    await other.close()

    outcome = await begun.outcome()

    assert ended == 1
    assert isinstance(outcome, EngineUnavailable)
    assert plain(await ask(client, SLEEP, 0)) == [{"pg_sleep": "", "mark": "plan2-at-once"}]


async def test_a_client_that_closes_waits_for_it(client: EngineClient) -> None:
    await ask(client, SLEEP, 0)
    begun = Begun(client, SLEEP, 0.2)

    await client.close(5)

    assert isinstance(await begun.outcome(), Result)


async def test_asyncpg_answers_below_its_layers_what_it_does_above(
    postgresql: EngineServer,
) -> None:
    connection = await asyncpg.connect(postgresql.url)
    prepared = await connection.prepare("SELECT generate_series(1, $1::int) AS n")

    rows = internals.rows(connection, prepared, [3])
    await asyncio.wait([rows.send(None)])
    with pytest.raises(StopIteration) as answered:
        rows.send(None)

    assert answered.value.value == await prepared.fetch(3)
    assert await internals.rows(connection, prepared, [2]) == await prepared.fetch(2)
    with pytest.raises(asyncpg.exceptions.DataError):
        internals.rows(connection, prepared, ["x"]).send(None)
    assert await prepared.fetchval(1) == 1
    await connection.close()


async def test_asyncpg_is_at_rest_while_it_is_open_and_in_no_transaction(
    postgresql: EngineServer,
) -> None:
    connection = await asyncpg.connect(postgresql.url)
    seen = [internals.is_at_rest(connection)]
    for statement in ("BEGIN", "COMMIT"):
        await connection.execute(statement)
        seen.append(internals.is_at_rest(connection))
    await connection.close()
    aborted = await asyncpg.connect(postgresql.url)
    aborted.terminate()

    assert seen == [True, False, True]
    assert not internals.is_at_rest(connection)
    assert not internals.is_at_rest(aborted)


async def _running(postgresql: EngineServer) -> int:
    other = await asyncpg.connect(postgresql.url)
    count = -1
    for _ in range(100):
        count = await other.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%plan2-at-once%'"
            " AND state = 'active' AND pid <> pg_backend_pid()"
        )
        if count == 0:
            break
        await asyncio.sleep(0.05)
    await other.close()
    return int(count)
