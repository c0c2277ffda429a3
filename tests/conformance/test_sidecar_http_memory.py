"""The sidecar's listeners in this process, with engines in memory: what no real engine shows."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fixtures.fix_memory_engine import MemoryEngines
from fixtures.fix_sidecar import Connect, SidecarClient, eventually
from plan2_contract.engines import Engine
from plan2_sidecar.app import listening
from plan2_sidecar.connections import ConnectionEnvironment
from plan2_sidecar.errors import ConnectionLost, EngineAuthFailed
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.settings import Settings
from plan2_sidecar.state import Sidecar
from plan2_sidecar.tokens import Tokens


@pytest.fixture
def engines() -> MemoryEngines:
    return MemoryEngines()


@contextlib.asynccontextmanager
async def serving(engines: MemoryEngines) -> AsyncIterator[str]:
    """The URL of the API."""
    connections = ConnectionEnvironment({"POSTGRES_HOST": "memory", "POSTGRES_POOL_MAX": "2"})
    settings = Settings(port=0, metrics_port=0, stop_grace_seconds=2.0)
    sidecar = Sidecar(settings, Fleet(connections, opener=engines.open), Tokens(None, None))
    async with listening(sidecar) as (api, _):
        yield f"http://127.0.0.1:{api.addresses[0][1]}"


@pytest.fixture
async def sidecar(engines: MemoryEngines) -> AsyncIterator[str]:
    async with serving(engines) as url:
        yield url


@pytest.fixture
def client(sidecar: str, connect: Connect) -> SidecarClient:
    return connect(sidecar)


async def test_an_engine_gets_the_query_as_it_was_sent_and_what_is_left_of_the_deadline(
    client: SidecarClient, engines: MemoryEngines
) -> None:
    await client.query(
        "SELECT $1", "postgresql", params=["x"], options={"timeoutMs": 900, "readOnly": True}
    )

    query, remaining = engines.queries[0]
    assert (query.query, query.params, query.read_only) == ("SELECT $1", ["x"], True)
    assert query.max_rows == 10_000
    assert 0.5 < remaining <= 0.9


async def test_the_default_deadline_is_five_seconds(
    client: SidecarClient, engines: MemoryEngines
) -> None:
    await client.query("SELECT 1", "postgresql")

    assert 4.5 < engines.queries[0][1] <= 5.0


async def test_a_caller_who_hangs_up_cancels_the_engines_work(
    client: SidecarClient, engines: MemoryEngines
) -> None:
    call = asyncio.create_task(client.query("slow", "postgresql"))
    await asyncio.wait_for(engines.started.wait(), 30)

    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call

    await asyncio.wait_for(engines.cancelled.wait(), 10)


async def test_one_call_too_many_is_told_to_come_back(
    client: SidecarClient, engines: MemoryEngines
) -> None:
    slow = [asyncio.create_task(client.query("slow", "postgresql")) for _ in range(2)]

    async def both_under_way() -> bool:
        return len(engines.queries) == 2

    await eventually(both_under_way)
    refused = await client.query("SELECT 1", "postgresql")
    engines.release.set()
    replies = await asyncio.gather(*slow)

    assert (refused.status, refused.body["code"]) == (503, "bulkhead_full")
    assert refused.headers["Retry-After"] == "1"
    assert [reply.status for reply in replies] == [200, 200]


@pytest.mark.parametrize(
    ("query", "retryable"), [("SELECT 1", True), ("DELETE FROM t", False)], ids=["read", "write"]
)
async def test_a_lost_connection_is_retryable_for_reads_alone(
    client: SidecarClient, engines: MemoryEngines, query: str, retryable: bool
) -> None:
    engines.problem = ConnectionLost("reset by peer")

    reply = await client.query(query, "postgresql")

    assert (reply.status, reply.body["retryable"]) == (503, retryable)
    assert reply.body["database"] == Engine.POSTGRESQL


async def test_a_read_whose_connection_broke_is_tried_once_more(
    client: SidecarClient, engines: MemoryEngines
) -> None:
    engines.problems = [ConnectionLost("reset by peer")]

    reply = await client.query("SELECT 1", "postgresql")

    assert (reply.status, reply.body["meta"]["attempts"]) == (200, 2)


async def test_a_write_whose_connection_broke_is_not_tried_again(
    client: SidecarClient, engines: MemoryEngines
) -> None:
    engines.problems = [ConnectionLost("reset by peer")]

    reply = await client.query("DELETE FROM t", "postgresql")

    assert (reply.status, reply.body["retryable"]) == (503, False)
    assert len(engines.queries) == 1


async def test_a_read_is_tried_no_more_than_twice(
    client: SidecarClient, engines: MemoryEngines
) -> None:
    engines.problem = ConnectionLost("reset by peer")

    reply = await client.query("SELECT 1", "postgresql")

    assert (reply.status, len(engines.queries)) == (503, 2)


async def test_a_refused_password_with_nothing_new_to_read_is_the_callers_to_know(
    client: SidecarClient, engines: MemoryEngines
) -> None:
    engines.problem = EngineAuthFailed("password authentication failed")

    reply = await client.query("SELECT 1", "postgresql")

    assert (reply.status, reply.body["code"]) == (503, "engine_auth_failed")
    assert len(engines.queries) == 1


async def test_a_fault_of_ours_is_a_problem_that_gives_nothing_away(
    engines: MemoryEngines, connect: Connect
) -> None:
    # Before anybody has opened it: the sidecar looks into PostgreSQL by itself, too.
    engines.cannot_open = True

    async with serving(engines) as url:
        reply = await connect(url).query("SELECT 1", "postgresql")

    assert (reply.status, reply.body["code"]) == (500, "internal")
    assert "driver" not in str(reply.body)


async def test_calls_longer_than_the_grace_are_ended(
    engines: MemoryEngines, connect: Connect, tmp_path: Path
) -> None:
    connections = ConnectionEnvironment({"POSTGRES_HOST": "memory"})
    path = tmp_path / "api.sock"
    settings = Settings(port=0, metrics_port=0, socket=path, stop_grace_seconds=0.2)
    sidecar = Sidecar(settings, Fleet(connections, opener=engines.open), Tokens(None, None))
    async with listening(sidecar):
        client = connect(path)
        call = asyncio.create_task(client.query("slow", "postgresql"))
        await asyncio.wait_for(engines.started.wait(), 30)

    assert engines.cancelled.is_set()
    assert [engine.closed for engine in engines.opened] == [True]
    assert not path.exists()
    await asyncio.gather(call, return_exceptions=True)
