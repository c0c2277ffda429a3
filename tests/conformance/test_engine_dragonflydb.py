"""Dragonfly's and Redis's own promises: replies as JSON, one shared connection, nothing blocked."""

import asyncio
import gc
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import hiredis
import pytest
import redis.asyncio

from conformance.engine_cases import CASES, connection, opened, plain, run
from fixtures.fix_engines import EngineServer
from plan2_contract.connection import KeyValue, Login
from plan2_contract.engines import Engine
from plan2_sidecar import engines
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import EngineClient
from plan2_sidecar.engines.dragonflydb_commands import REFUSED, is_read
from plan2_sidecar.errors import (
    ConnectionLost,
    DeadlineExceeded,
    EngineAuthFailed,
    EngineUnavailable,
    InvalidRequest,
    PermissionDenied,
    QueryRejected,
    StoreFull,
)
from plan2_sidecar.query import Query, Result

BINARY = {"$base64": "/wD+"}


@pytest.fixture(params=["dragonflydb", "redis_legacy"])
def server(request: pytest.FixtureRequest) -> EngineServer:
    return request.getfixturevalue(request.param)


@pytest.fixture
def to(server: EngineServer) -> KeyValue:
    case = next(case for case in CASES if case.engine == server.engine)
    connected = connection(case, server)
    assert isinstance(connected, KeyValue)
    return connected


@pytest.fixture
async def client(server: EngineServer, to: KeyValue) -> AsyncIterator[EngineClient]:
    async with opened(Engine(server.engine), to) as client:
        await ask(client, "FLUSHALL")
        yield client


async def ask(client: EngineClient, *command: Any, **options: Any) -> Result:
    query = command[0] if len(command) == 1 else list(command)
    return await run(client, Query(query=query, **options))


async def test_replies_are_json_values(client: EngineClient) -> None:
    assert plain(await ask(client, "SET", "k", "v")) == "OK"
    assert plain(await ask(client, "GET k")) == "v"
    assert plain(await ask(client, "GET nothing")) is None
    assert plain(await ask(client, "INCR n")) == 1
    assert plain(await ask(client, "HSET", "h", "a", 1, "b", 2.5)) == 2
    assert plain(await ask(client, "HGETALL h")) == {"a": "1", "b": "2.5"}
    assert plain(await ask(client, "RPUSH l a b")) == 2
    assert plain(await ask(client, "LRANGE l 0 -1")) == ["a", "b"]
    assert plain(await ask(client, "SADD s x")) == 1
    assert plain(await ask(client, "SMEMBERS s")) == ["x"]
    assert plain(await ask(client, "ZADD z 1.5 m")) == 1
    assert plain(await ask(client, "ZRANGE z 0 -1 WITHSCORES")) == [["m", 1.5]]
    assert plain(await ask(client, "EVAL", "return {1, 'a', {2}}", 0)) == [1, "a", [2]]


async def test_bytes_that_are_not_text_travel_as_base64(client: EngineClient) -> None:
    await ask(client, "SET", "b", BINARY)
    await ask(client, "HSET", "h", BINARY, "x")

    assert plain(await ask(client, "GET", "b")) == BINARY
    assert plain(await ask(client, "STRLEN", "b")) == 3
    # A JSON object has no such key: pairs stand in for it.
    assert plain(await ask(client, "HGETALL", "h")) == [[BINARY, "x"]]


async def test_text_is_split_at_spaces_and_nothing_is_quoted(client: EngineClient) -> None:
    await ask(client, 'SET  k  "v"')

    assert plain(await ask(client, "GET k")) == '"v"'


async def test_a_number_keeps_all_its_digits(client: EngineClient) -> None:
    await ask(client, "SET", "n", Decimal("0.10000000000000000001"))

    assert plain(await ask(client, "GET n")) == "0.10000000000000000001"


async def test_a_line_break_in_an_argument_begins_no_command(client: EngineClient) -> None:
    hostile = "v\r\nSET injected 1\r\n"

    await ask(client, "SET", "k", hostile)

    assert plain(await ask(client, "GET k")) == hostile
    assert plain(await ask(client, "EXISTS injected")) == 0


async def test_a_reply_counts_its_rows(client: EngineClient) -> None:
    await ask(client, "RPUSH l a b c")

    assert (await ask(client, "LRANGE l 0 -1")).row_count == 3
    assert (await ask(client, "GET nothing")).row_count == 0
    assert (await ask(client, "LLEN l")).row_count == 1


@pytest.mark.parametrize("query", [[], "", "  ", [1], ["GET", None], ["GET", ["k"]], {"a": 1}])
async def test_what_is_no_command_is_refused(client: EngineClient, query: Any) -> None:
    with pytest.raises(InvalidRequest):
        await run(client, Query(query=query))


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_what_would_hold_or_change_the_connection_is_refused(
    client: EngineClient, name: str
) -> None:
    assert not is_read(name)

    with pytest.raises(QueryRejected):
        await ask(client, name.lower(), "a", "b")


async def test_a_stream_is_read_without_waiting_only(client: EngineClient) -> None:
    await ask(client, "XADD s * a 1")

    assert (await ask(client, "XREAD COUNT 1 STREAMS s 0")).row_count == 1
    with pytest.raises(QueryRejected):
        await ask(client, "XREAD block 0 STREAMS s $")
    with pytest.raises(QueryRejected):
        await run(client, Query(query=["XREAD", {"$base64": "YkxvY0s="}, 0, "STREAMS", "s", "$"]))


async def test_a_stream_may_be_called_like_an_option(client: EngineClient) -> None:
    await ask(client, "XADD block * a 1")

    assert (await ask(client, "XREAD STREAMS block 0")).row_count == 1


async def test_no_command_that_writes_counts_as_a_read(client: EngineClient) -> None:
    flags = plain(await ask(client, "COMMAND"))

    writes = {entry[0].upper() for entry in flags if "write" in entry[2]}

    assert len(writes) > 50
    assert not [name for name in writes if is_read(name)]


async def test_many_calls_at_once_share_one_connection(
    client: EngineClient, server: EngineServer
) -> None:
    calls = [ask(client, "INCRBY", "n", n) for n in range(500)]

    results = await asyncio.gather(*calls)

    assert [plain(result) for result in results] == [n * (n + 1) // 2 for n in range(500)]
    assert client.pool() == {"size": 1, "idle": 1, "inUse": 0, "max": 3}
    async with redis.asyncio.from_url(server.url) as oracle:
        names = [each["name"] for each in await oracle.client_list()]
    assert names.count("plan2-sidecar") == 1


async def test_replies_stay_with_their_calls_when_some_give_up(client: EngineClient) -> None:
    calls = [asyncio.create_task(ask(client, "ECHO", str(n))) for n in range(100)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()

    results = await asyncio.gather(*calls[1::2])

    assert [plain(result) for result in results] == [str(n) for n in range(1, 100, 2)]


async def test_what_it_writes_is_what_redis_py_reads(
    client: EngineClient, server: EngineServer
) -> None:
    await ask(client, "SET", "text", "ü \n 🙂")
    await ask(client, "SET", "bytes", BINARY)
    await ask(client, "SET", "number", 1.5)

    async with redis.asyncio.from_url(server.url) as oracle:
        read = await oracle.mget("text", "bytes", "number")

    assert read == ["ü \n 🙂".encode(), b"\xff\x00\xfe", b"1.5"]


async def test_a_server_without_memory_is_a_full_store(client: EngineClient) -> None:
    await ask(client, "CONFIG SET maxmemory 1")
    try:
        with pytest.raises(StoreFull) as full:
            await ask(client, "SET", "k", "v")
        assert full.value.status == 503
        assert plain(await ask(client, "GET k")) is None
    finally:
        await ask(client, "CONFIG SET maxmemory 0")


async def test_reads_use_the_read_only_user(client: EngineClient, to: KeyValue) -> None:
    await ask(client, "ACL SETUSER plan2-ro on >reader ~* +@read")
    await ask(client, "SET k v")
    reader = Login(username="plan2-ro", password="reader")
    both = KeyValue(host=to.host, port=to.port, rw=to.rw, ro=reader, pool_max=3)

    async with opened(client.engine, both) as two:
        assert plain(await ask(two, "GET k", read_only=True)) == "v"
        assert plain(await ask(two, "SET k w")) == "OK"
        assert two.pool()["size"] == 2
        with pytest.raises(PermissionDenied):
            await ask(two, "INFO", read_only=True)


async def test_no_login_where_one_is_needed_says_so(to: KeyValue) -> None:
    async with opened(Engine.REDIS, KeyValue(host=to.host, port=to.port)) as client:
        with pytest.raises(EngineAuthFailed):
            await ask(client, "GET k")


async def test_a_slow_reply_is_waited_for_and_a_short_deadline_ends_its_own_call_only(
    client: EngineClient, server: EngineServer
) -> None:
    await ask(client, "SET k v")
    async with redis.asyncio.from_url(server.url) as other:
        await other.execute_command("CLIENT", "PAUSE", "400", "ALL")

    patient = asyncio.create_task(run(client, Query(query="GET k"), seconds=30))
    with pytest.raises(DeadlineExceeded):
        await run(client, Query(query="GET k"), seconds=0.1)

    assert plain(await patient) == "v"
    assert client.pool()["size"] == 1


async def test_a_silent_server_is_given_up_long_before_the_deadline(
    client: EngineClient, server: EngineServer
) -> None:
    await ask(client, "SET k v")
    async with redis.asyncio.from_url(server.url) as other:
        await other.execute_command("CLIENT", "PAUSE", "1500", "ALL")

    with pytest.raises(ConnectionLost):
        await run(client, Query(query="GET k"), seconds=30)

    await asyncio.sleep(1)
    assert plain(await ask(client, "GET k")) == "v"


async def test_two_commands_leave_together(client: EngineClient) -> None:
    both = engines.opened(client).both

    replies = await both(["SET", "k", "v"], ["GET", "k"], deadline=Deadline.after(10))

    assert replies == (b"OK", b"v")
    with pytest.raises(QueryRejected, match="wrong kind"):
        await both(["GET", "k"], ["LPUSH", "k", "v"], deadline=Deadline.after(10))


@pytest.mark.parametrize("seconds", [0.1, 30.0], ids=["given-up", "lost"])
async def test_two_commands_that_fail_together_leave_nothing_unheard(
    client: EngineClient, server: EngineServer, seconds: float
) -> None:
    unheard: list[dict[str, Any]] = []
    await ask(client, "SET k v")
    async with redis.asyncio.from_url(server.url) as other:
        await other.execute_command("CLIENT", "PAUSE", "1500", "ALL")
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unheard.append(context))

    try:
        with pytest.raises((DeadlineExceeded, ConnectionLost)):
            await engines.opened(client).both(
                ["GET", "k"], ["GET", "l"], deadline=Deadline.after(seconds)
            )
        await asyncio.sleep(1.5)
        gc.collect()
    finally:
        loop.set_exception_handler(None)

    assert unheard == []
    assert plain(await ask(client, "GET k")) == "v"


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("ERR Out of memory", StoreFull),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFull),
        ("LOADING Dragonfly is loading the dataset in memory", EngineUnavailable),
        ("ERR max number of clients reached", EngineUnavailable),
        ("READONLY You can't write against a read only replica.", EngineUnavailable),
        ("NOPERM app has no ACL permissions", PermissionDenied),
        ("WRONGPASS invalid username-password pair", EngineAuthFailed),
        ("NOSCRIPT No matching script. Please use EVAL.", QueryRejected),
        ("WRONGTYPE Operation against a key", QueryRejected),
        ("ERR syntax error", QueryRejected),
    ],
)
async def test_error_replies_have_their_problems(reply: str, problem: type[Exception]) -> None:
    async with (
        _answering(f"-{reply}\r\n".encode()) as port,
        opened(Engine.DRAGONFLYDB, KeyValue(host="127.0.0.1", port=port)) as client,
    ):
        with pytest.raises(problem) as raised:
            await ask(client, "GET k")

    assert type(raised.value) is problem
    assert reply in raised.value.args[0]


@pytest.mark.parametrize(
    ("wire", "data"),
    [
        (b"#f\r\n", False),
        (b",inf\r\n", "inf"),
        (b"*-1\r\n", None),
        (b"_\r\n", None),
        (b"(12345678901234567890\r\n", "12345678901234567890"),
        (b"=7\r\ntxt:abc\r\n", "abc"),
        (b">2\r\n+invalidate\r\n_\r\n+OK\r\n", "OK"),
        (b"%1\r\n:1\r\n+one\r\n", {"1": "one"}),
    ],
)
async def test_both_protocols_replies_are_read(wire: bytes, data: Any) -> None:
    async with (
        _answering(wire) as port,
        opened(Engine.DRAGONFLYDB, KeyValue(host="127.0.0.1", port=port)) as client,
    ):
        assert plain(await ask(client, "GET k")) == data


async def test_an_older_server_without_hello_is_served_in_the_older_protocol() -> None:
    info = b"# Server\r\nredis_version:5.0.14\r\n"
    replies = [
        b"-ERR unknown command `HELLO`, with args beginning with: `3`\r\n",
        b"$%d\r\n%s\r\n" % (len(info), info),
        b"$1\r\nv\r\n",
    ]
    async with (
        _Served(replies) as port,
        opened(Engine.REDIS, KeyValue(host="127.0.0.1", port=port)) as client,
    ):
        assert plain(await ask(client, "GET k")) == "v"


class _Scripted(asyncio.Protocol):
    """Answers each command with the next reply."""

    def __init__(self, replies: list[bytes]) -> None:
        self._replies = iter(replies)
        self._reader = hiredis.Reader(notEnoughData=self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while self._reader.gets() is not self:
            self._transport.write(next(self._replies, b"-ERR no more\r\n"))


class _Served:
    def __init__(self, replies: list[bytes]) -> None:
        self._replies = replies

    async def __aenter__(self) -> int:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Scripted(self._replies), "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.sleep(0)


def _answering(reply: bytes) -> _Served:
    """A server that greets, then gives one reply."""
    return _Served([b"%2\r\n+version\r\n+7.4.0\r\n+dragonfly_version\r\n+df-v1.40.1\r\n", reply])
