"""A caller who hangs up takes the work on the server along; so does a deadline that passes.

For ClickHouse, whose test server gives queries ids of its own, `test_engine_clickhouse` sees the
KILL QUERY go out.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from conformance.engine_cases import CASES, MONGODB
from conformance.under_load import Gauges, prepare, read, write_document
from fixtures.fix_engines import EngineServer
from fixtures.fix_sidecar import Connect, SidecarClient, SidecarProcess, Start, eventually
from fixtures.slow_proxy import SlowProxy, slow_proxy
from plan2_contract.engines import Engine

LONG_MS = 30_000
# What the work would take if nobody stopped it.
WORK_SECONDS = 25.0
CALLS = 2


@pytest.fixture
def sidecar(request: pytest.FixtureRequest, start_sidecar: Start, tmp_path: Path) -> SidecarProcess:
    fixtures = {case.engine: case.fixture for case in CASES}
    wanted = (Engine.POSTGRESQL, Engine.CLICKHOUSE, Engine.ARANGODB)
    servers = {engine: request.getfixturevalue(fixtures[engine]) for engine in wanted}
    file = tmp_path / "connection.json"
    write_document(file, servers)
    return start_sidecar(PLAN2_CONNECTION_FILE=str(file))


@pytest.fixture
def client(sidecar: SidecarProcess, connect: Connect) -> SidecarClient:
    return connect(sidecar)


@pytest.fixture
def gauges(sidecar: SidecarProcess, connect: Connect) -> Gauges:
    return Gauges(connect(sidecar.metrics_url))


@pytest.fixture
async def admin(postgresql: EngineServer) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(postgresql.url)
    yield opened
    await opened.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


Count = Callable[[], Awaitable[int]]


async def hang_up_on(client: SidecarClient, query: str, target: Engine, running: Count) -> None:
    """Ask for long work, see the server at it, hang up, and see it stop long before its end."""
    calls = [
        asyncio.create_task(client.query(query, target, options={"timeoutMs": LONG_MS}))
        for _ in range(CALLS)
    ]
    began = time.monotonic()
    await eventually(lambda: _is(running, CALLS), 15)

    for call in calls:
        call.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*calls)

    await eventually(lambda: _is(running, 0), 15)
    assert time.monotonic() - began < WORK_SECONDS


async def test_on_postgresql(
    client: SidecarClient, gauges: Gauges, admin: asyncpg.Connection
) -> None:
    async def running() -> int:
        found: int = await admin.fetchval(
            "SELECT count(*)::int FROM pg_stat_activity"
            " WHERE state = 'active' AND query LIKE '%pg_sleep(26)%'"
            " AND pid <> pg_backend_pid()"
        )
        return found

    await hang_up_on(client, "SELECT pg_sleep(26)", Engine.POSTGRESQL, running)

    await eventually(lambda: _nobody_holds_any(gauges), 15)


async def test_on_arangodb(
    client: SidecarClient, gauges: Gauges, arangodb: EngineServer, http: aiohttp.ClientSession
) -> None:
    secret = aiohttp.encode_basic_auth(arangodb.admin_user, arangodb.admin_password)

    async def running() -> int:
        url = f"{arangodb.url}/_db/_system/_api/query/current"
        async with http.get(url, headers={"Authorization": secret}) as reply:
            return sum("SLEEP(26)" in each["query"] for each in await reply.json())

    await hang_up_on(client, "RETURN SLEEP(26)", Engine.ARANGODB, running)

    await eventually(lambda: _nobody_holds_any(gauges), 15)


async def test_on_mongodb_the_connection_of_the_call_is_closed_which_ends_its_work(
    mongodb: EngineServer, start_sidecar: Start, connect: Connect, tmp_path: Path
) -> None:
    await prepare(MONGODB, mongodb)
    async with slow_proxy(mongodb.host, mongodb.port) as proxy:
        file = tmp_path / "connection.json"
        write_document(file, {Engine.MONGODB: mongodb}, {Engine.MONGODB: proxy.port})
        sidecar = await asyncio.to_thread(start_sidecar, PLAN2_CONNECTION_FILE=str(file))
        client, gauges = connect(sidecar), Gauges(connect(sidecar.metrics_url))
        assert (await read(client, MONGODB, 5000)).status == 200
        held = proxy.connections

        proxy.delay_seconds = WORK_SECONDS
        call = asyncio.create_task(read(client, MONGODB, LONG_MS))
        await eventually(lambda: _some_are_held(gauges), 15)
        call.cancel()
        await eventually(lambda: _nobody_holds_any(gauges), 15)
        await eventually(lambda: _are_fewer(proxy, held), 15)

        proxy.delay_seconds = 0.0
        await eventually(lambda: _answers(client), 15)
        await asyncio.to_thread(sidecar.stop)


@pytest.mark.parametrize(
    ("query", "target"),
    [
        ("SELECT pg_sleep(26)", Engine.POSTGRESQL),
        ("SELECT sleepEachRow(0.26) FROM numbers(100)", Engine.CLICKHOUSE),
        ("RETURN SLEEP(26)", Engine.ARANGODB),
    ],
    ids=["postgresql", "clickhouse", "arangodb"],
)
async def test_a_deadline_that_passes_is_told_in_time_and_gives_the_connection_back(
    client: SidecarClient, gauges: Gauges, query: str, target: Engine
) -> None:
    began = time.monotonic()

    reply = await client.query(query, target, options={"timeoutMs": 400})

    assert (reply.status, reply.body["code"]) == (504, "deadline_exceeded")
    assert reply.body["retryable"] is True
    assert time.monotonic() - began < 5 * 0.4
    await eventually(lambda: _nobody_holds_any(gauges), 15)


async def _is(running: Count, count: int) -> bool:
    return await running() == count


async def _nobody_holds_any(gauges: Gauges) -> bool:
    return not await gauges.in_use()


async def _some_are_held(gauges: Gauges) -> bool:
    return bool(await gauges.in_use())


async def _are_fewer(proxy: SlowProxy, count: int) -> bool:
    return proxy.connections < count


async def _answers(client: SidecarClient) -> bool:
    return (await read(client, MONGODB)).status == 200
