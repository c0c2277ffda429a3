"""DragonflyDB and Redis asked without a task: answers as `execute` has them, each told once."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from conformance.engine_cases import CASES, Told, connection, opened, plain, run
from fixtures.fix_engines import EngineServer
from plan2_contract.connection import KeyValue
from plan2_sidecar import engines
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import EngineClient
from plan2_sidecar.engines.base import Cancel
from plan2_sidecar.errors import ConnectionLost, DeadlineExceeded, QueryRejected
from plan2_sidecar.query import Query, Result

HELD_MS = 300
HOLD = (
    "local function now() local t = redis.call('TIME') return t[1] * 1000 + t[2] / 1000 end "
    f"local till = now() + {HELD_MS} while now() < till do end return 1"
)


@pytest.fixture(params=["dragonflydb", "redis_legacy"])
def server(request: pytest.FixtureRequest) -> EngineServer:
    return request.getfixturevalue(request.param)


@pytest.fixture
async def client(server: EngineServer) -> AsyncIterator[EngineClient]:
    to = connection(next(case for case in CASES if case.engine == server.engine), server)
    assert isinstance(to, KeyValue)
    async with opened(server.engine, to) as client:
        for command in (
            ["DEL", "plan2:text", "plan2:list", "plan2:bytes"],
            ["SET", "plan2:text", "Ada"],
            ["SET", "plan2:bytes", {"$base64": "/wD+"}],
            ["RPUSH", "plan2:list", 1, 2, 3],
        ):
            await run(client, Query(query=command))
        yield client


class Begun(Told):
    """A call begun without a task, or not begun."""

    def __init__(
        self, client: EngineClient, command: Any, seconds: float = 10.0, **options: Any
    ) -> None:
        super().__init__()
        own: Any = engines.opened(client)
        query = Query(query=command, **options)
        self.cancel: Cancel | None = own.begin(query, Deadline.after(seconds), self)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["GET", "plan2:text"], {}),
        ("GET plan2:text", {}),
        (["GET", "plan2:nothing"], {}),
        (["GET", "plan2:bytes"], {}),
        (["LRANGE", "plan2:list", 0, -1], {}),
        (["LRANGE", "plan2:list", 0, -1], {"max_rows": 2}),
        (["LRANGE", "plan2:list", 0, -1], {"max_rows": 3}),
        (["STRLEN", "plan2:text"], {"read_only": True}),
    ],
    ids=json.dumps,
)
async def test_it_answers_what_execute_does(
    client: EngineClient, command: Any, options: dict[str, Any]
) -> None:
    query = Query(query=command, **options)
    expected = await run(client, query)

    answered = await Begun(client, command, **options).outcome()

    assert plain(answered) == plain(expected)
    assert answered == expected


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ([], {}),
        ([["GET"]], {}),
        (["BLPOP", "plan2:nothing", 1], {}),
        (["GET", "plan2:text"], {"params": [1]}),
        (["DEL", "plan2:text"], {"read_only": True}),
        (["GET", "plan2:text"], {"seconds": 0.0}),
    ],
    ids=["empty", "nested", "blocks", "parameters", "no read", "too late"],
)
async def test_what_is_refused_is_left_to_who_awaits_it(
    client: EngineClient, command: Any, options: dict[str, Any]
) -> None:
    assert Begun(client, command, **options).cancel is None
    assert plain(await run(client, Query(query=["GET", "plan2:text"]))) == "Ada"


async def test_nothing_is_begun_before_there_is_a_connection(server: EngineServer) -> None:
    to = connection(next(case for case in CASES if case.engine == server.engine), server)
    async with opened(server.engine, to) as client:
        await run(client, Query(query="PING"))
        (channel,) = engines.opened(client)._channels.values()
        channel.close()

        assert Begun(client, "PING").cancel is None


async def test_an_error_reply_is_a_problem(client: EngineClient, server: EngineServer) -> None:
    problem = await Begun(client, ["GET", "plan2:list"]).outcome()

    assert isinstance(problem, QueryRejected)
    assert (problem.database, problem.engine_code) == (server.engine, "WRONGTYPE")


@pytest.mark.parametrize("end", ["deadline", "caller"])
async def test_who_gives_up_is_told_and_replies_stay_with_their_calls(
    client: EngineClient, end: str
) -> None:
    held = Begun(client, ["EVAL", HOLD, 0], seconds=0.05 if end == "deadline" else 10)
    behind = Begun(client, ["GET", "plan2:text"])
    assert held.cancel is not None

    if end == "caller":
        await asyncio.sleep(0.05)
        held.cancel()
        held.cancel()

    gave_up = await held.outcome()
    assert isinstance(gave_up, DeadlineExceeded if end == "deadline" else asyncio.CancelledError)
    assert plain(await behind.outcome()) == "Ada"
    assert len(held.outcomes) == 1


async def test_a_connection_that_ends_is_told(client: EngineClient, server: EngineServer) -> None:
    begun = Begun(client, ["EVAL", HOLD, 0])
    channel = engines.opened(client)._channels["rw"]
    await asyncio.sleep(0.05)
    channel.close()

    lost = await begun.outcome()

    assert isinstance(lost, ConnectionLost)
    assert lost.database is server.engine
    await asyncio.sleep(HELD_MS / 1000)
    assert plain(await run(client, Query(query=["GET", "plan2:text"]))) == "Ada"


async def test_a_client_that_closes_waits_for_it(client: EngineClient) -> None:
    begun = Begun(client, ["EVAL", HOLD, 0])

    await client.close(5)

    assert isinstance(await begun.outcome(), Result)
