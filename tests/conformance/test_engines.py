"""What every engine's client promises, whatever the engine: one suite, one case an engine."""

import asyncio
import gc
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import uvloop

from conformance.engine_cases import CASES, Case, connection, make_room, opened, plain, run
from fixtures.fix_engines import EngineServer, free_port
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import FACTORIES, EngineClient
from plan2_sidecar.errors import (
    DeadlineExceeded,
    EngineAuthFailed,
    EngineUnavailable,
    ParameterMismatch,
    QueryRejected,
    ReadOnly,
    Unavailable,
)
from plan2_sidecar.query import Query, Result

QUICK_SECONDS = 2.0
# PyMongo forgets the socket of a refused connection; the collector then warns of it.
PYMONGO_FORGETS = "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
WITH_SLOW = [case for case in CASES if case.slow is not None]


@dataclass(frozen=True)
class Opened:
    """A client of the case's server, with the case's data in place."""

    case: Case
    server: EngineServer
    client: EngineClient


def _ids(case: Case) -> str:
    return case.engine.value


@pytest.fixture(params=CASES, ids=_ids)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def server(request: pytest.FixtureRequest, case: Case) -> EngineServer:
    return request.getfixturevalue(case.fixture)


@pytest.fixture
async def engine(case: Case, server: EngineServer) -> AsyncIterator[Opened]:
    await make_room(case, server)
    async with opened(case.engine, connection(case, server)) as client:
        for query in case.prepare:
            await run(client, query)
        yield Opened(case, server, client)


async def test_what_was_written_is_read_back(engine: Opened) -> None:
    await run(engine.client, engine.case.write)

    result = await run(engine.client, engine.case.read)

    assert plain(result) == engine.case.found
    assert result.row_count == 1
    assert not result.truncated


async def test_a_syntax_error_is_not_the_engines_fault(engine: Opened) -> None:
    with pytest.raises(QueryRejected) as rejected:
        await run(engine.client, engine.case.syntax_error)

    assert rejected.value.status == 422
    assert rejected.value.database is engine.case.engine
    assert rejected.value.detail


async def test_parameters_that_do_not_fit_are_refused(engine: Opened) -> None:
    with pytest.raises(ParameterMismatch) as refused:
        await run(engine.client, engine.case.wrong_parameters)

    assert refused.value.status == 400
    assert refused.value.database is engine.case.engine


async def test_read_only_refuses_a_write_and_lets_a_read_through(engine: Opened) -> None:
    with pytest.raises(ReadOnly) as refused:
        await run(engine.client, _read_only(engine.case.write))

    assert (refused.value.status, refused.value.code) == (403, "read_only")
    await run(engine.client, engine.case.write)
    result = await run(engine.client, _read_only(engine.case.read))
    assert plain(result) == engine.case.found


async def test_rows_beyond_max_rows_are_left_out_and_it_says_so(engine: Opened) -> None:
    await run(engine.client, engine.case.write)

    result = await run(engine.client, _at_most(engine.case.many, 2))

    assert len(plain(result)) == result.row_count == 2
    assert result.truncated
    whole = await run(engine.client, engine.case.many)
    assert whole.row_count >= 3
    exact = await run(engine.client, _at_most(engine.case.many, whole.row_count))
    assert not exact.truncated
    assert exact.row_count == whole.row_count


async def test_ping_answers_the_servers_version(engine: Opened) -> None:
    version = await engine.client.ping(Deadline.after(5))

    assert version[:1].isdigit()
    assert "." in version


async def test_concurrent_calls_stay_within_the_pool_and_close_empties_it(
    case: Case, server: EngineServer, engine: Opened
) -> None:
    await run(engine.client, case.write)
    async with opened(case.engine, connection(case, server)) as client:
        assert client.pool() == {"size": 0, "idle": 0, "inUse": 0, "max": 3}

        results = await asyncio.gather(*(run(client, case.read) for _ in range(20)))

        assert all(plain(result) == case.found for result in results)
        pool = client.pool()
        assert 1 <= pool["size"] <= 3
        assert pool["inUse"] == 0
        await client.close(1.0)
        assert client.pool()["size"] == 0
        with pytest.raises(EngineUnavailable):
            await run(client, case.read)


@pytest.mark.parametrize("case", WITH_SLOW, ids=_ids, indirect=True)
async def test_a_query_ends_at_its_deadline(engine: Opened) -> None:
    assert engine.case.slow is not None
    began = time.monotonic()

    with pytest.raises(DeadlineExceeded) as late:
        await run(engine.client, engine.case.slow, seconds=0.1)

    assert time.monotonic() - began < 0.1 + QUICK_SECONDS
    assert late.value.database is engine.case.engine
    assert await _settled(engine.client)


@pytest.mark.parametrize("case", WITH_SLOW, ids=_ids, indirect=True)
async def test_a_caller_who_goes_away_gives_the_connection_back(engine: Opened) -> None:
    assert engine.case.slow is not None
    calls = [asyncio.create_task(run(engine.client, engine.case.slow)) for _ in range(3)]
    await asyncio.sleep(0.05)

    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)

    assert all(call.cancelled() for call in calls)
    assert await _settled(engine.client)
    # Some engines finish what was asked before they turn to the next.
    assert plain(await _patiently(engine.client, engine.case.many))


async def test_the_sidecars_own_loop_serves_it_too(engine: Opened) -> None:
    await run(engine.client, engine.case.write)

    async def read() -> object:
        to = connection(engine.case, engine.server)
        async with opened(engine.case.engine, to) as client:
            return plain(await run(client, engine.case.read))

    found = await asyncio.to_thread(lambda: uvloop.run(read()))

    assert found == engine.case.found


@pytest.mark.filterwarnings(PYMONGO_FORGETS)
async def test_a_dead_engine_is_unavailable_at_once(case: Case, server: EngineServer) -> None:
    nobody = connection(case, server, port=free_port())
    async with opened(case.engine, nobody) as client:
        began = time.monotonic()

        with pytest.raises(EngineUnavailable) as unavailable:
            await run(client, case.read)

        assert time.monotonic() - began < QUICK_SECONDS
        assert unavailable.value.retryable
        assert unavailable.value.database is case.engine
    gc.collect()


async def test_a_wrong_password_says_so(case: Case, server: EngineServer) -> None:
    async with opened(case.engine, connection(case, server, password="wrong")) as client:
        with pytest.raises(EngineAuthFailed) as refused:
            await run(client, case.read)

    assert refused.value.status == 503
    assert "wrong" not in refused.value.detail.replace("wrong number", "")


@pytest.mark.filterwarnings(PYMONGO_FORGETS)
async def test_a_server_that_never_answers_costs_no_more_than_the_deadline(
    case: Case, server: EngineServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with opened(case.engine, connection(case, server, port=port)) as client:
            began = time.monotonic()

            with pytest.raises((EngineUnavailable, DeadlineExceeded)):
                await run(client, case.read, seconds=0.3)

            assert time.monotonic() - began < 0.3 + QUICK_SECONDS
            assert await _settled(client)
    gc.collect()


@pytest.mark.filterwarnings(PYMONGO_FORGETS)
async def test_an_engine_that_comes_back_is_used_again(engine: Opened) -> None:
    await run(engine.client, engine.case.write)
    await asyncio.to_thread(engine.server.stop)
    try:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await run(engine.client, engine.case.read, seconds=2)
    finally:
        await asyncio.to_thread(engine.server.start)

    result = await _patiently(engine.client, engine.case.read)

    assert plain(result) == engine.case.found
    gc.collect()


def test_importing_the_engines_imports_no_driver() -> None:
    drivers = "asyncpg redis hiredis clickhouse_connect weaviate arangoasync pymongo bson aiohttp"
    program = (
        "import sys, plan2_sidecar.engines; "
        f"print(*(name for name in '{drivers}'.split() if name in sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert done.stdout.split() == []


def test_every_engine_has_a_client() -> None:
    assert set(FACTORIES) == set(Engine) == {case.engine for case in CASES}


def _read_only(query: Query) -> Query:
    return Query(query=query.query, params=query.params, read_only=True)


def _at_most(query: Query, rows: int) -> Query:
    return Query(query=query.query, params=query.params, max_rows=rows)


async def _settled(client: EngineClient) -> bool:
    """Whether every connection is given back within a few seconds."""
    until = time.monotonic() + 5
    while client.pool()["inUse"]:
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.01)
    return True


async def _patiently(client: EngineClient, query: Query) -> Result:
    """The result, once the engine has finished starting."""
    until = time.monotonic() + 20
    while True:
        try:
            return await run(client, query, seconds=2)
        except (Unavailable, DeadlineExceeded, QueryRejected):
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)
