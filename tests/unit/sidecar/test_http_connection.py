"""A stream's body goes past aiohttp's parser, and the connection is aiohttp's all the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
import uvloop

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import http_connection
from plan2_sidecar.engines.http import HttpEngine, joined

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CONTENT = b"".join(b'{"n":%d}\n' % n for n in range(200_000))
WIRE = (
    HEAD
    + b"".join(
        b"%x\r\n%b\r\n" % (len(part), part)
        for part in (CONTENT[at : at + 30_001] for at in range(0, len(CONTENT), 30_001))
    )
    + b"0\r\n\r\n"
)
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def run_in_both(scenario: Callable[[], Awaitable[None]], loop: str) -> None:
    """In the loop that serves, and in the one that the other tests run in."""
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop

    async def within() -> None:
        async with asyncio.timeout(20):
            await scenario()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(within())


both = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


@asynccontextmanager
async def engine(*answers: Answer) -> AsyncIterator[tuple[HttpEngine, list[int]]]:
    """A client of a server that gives these answers, whichever connection they are asked on.

    Beside it, which connection each request came on.
    """
    seen: list[int] = []
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        mine = connections
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                seen.append(mine)
                await answers[len(seen) - 1](writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpEngine(
        Engine.CLICKHOUSE, f"http://127.0.0.1:{port}", limit=1, ca_pem=None, headers={}
    )
    try:
        yield client, seen
    finally:
        await client.close(0)
        server.close()


def writing(*parts: bytes, closing: bool = False) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if closing:
            writer.close()

    return answer


async def read(client: HttpEngine) -> bytes:
    async with client.streamed("GET", "/", Deadline.after(10)) as stream:
        return b"".join([joined(piece) async for piece in stream.pieces()])


@both
@pytest.mark.parametrize("size", [1, 70, 4099, 100_000, 10_000_000])
def test_a_body_is_read_whole_and_the_connection_kept(loop: str, size: int) -> None:
    wire = WIRE if size > 4000 else HEAD + b"5\r\nhello\r\n" * 30 + b"0\r\n\r\n"
    content = CONTENT if size > 4000 else b"hello" * 30
    parts = [wire[at : at + size] for at in range(0, len(wire), size)]

    async def scenario() -> None:
        async with engine(writing(*parts), writing(*parts), writing(*parts)) as (client, seen):
            assert [await read(client) for _ in range(2)] == [content, content]
            reply = await client.request("GET", "/", Deadline.after(10))
            assert reply.body == content
            assert seen == [1, 1, 1]
            assert client.pool() == {"size": 1, "idle": 1, "inUse": 0, "max": 1}

    run_in_both(scenario, loop)


@both
@pytest.mark.parametrize(
    "wire",
    [HEAD, HEAD + b"5\r\nhel", HEAD + b"5\r\nhello\r\n", WIRE[:-5], HEAD + b"5\r\nhello\r\n0\r\n"],
    ids=["head", "chunk", "few", "many", "end"],
)
def test_a_body_cut_short_is_an_error(loop: str, wire: bytes) -> None:
    async def scenario() -> None:
        async with engine(writing(wire, closing=True)) as (client, _):
            with pytest.raises(aiohttp.ClientPayloadError):
                await read(client)
            assert client.pool()["size"] == 0

    run_in_both(scenario, loop)


@both
@pytest.mark.parametrize("before", [b"", b"5\r\nhello\r\n"], ids=["first", "later"])
@pytest.mark.parametrize("broken", [b"nonsense\r\n", b"5\r\nhello!\r\n0\r\n\r\n"])
def test_a_broken_chunk_is_an_error_and_ends_the_connection(
    loop: str, before: bytes, broken: bytes
) -> None:
    async def scenario() -> None:
        async with engine(writing(HEAD + before, broken)) as (client, _):
            with pytest.raises(aiohttp.ClientError):
                await read(client)
            assert client.pool()["size"] == 0

    run_in_both(scenario, loop)


@both
def test_other_bodies_are_aiohttps(loop: str) -> None:
    counted = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    failed = b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    extended = HEAD + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n"

    async def scenario() -> None:
        answers = [writing(wire) for wire in (counted, failed, extended, counted)]
        async with engine(*answers) as (client, seen):
            assert [await read(client) for _ in answers] == [b"hello"] * 4
            assert seen == [1, 1, 1, 1]

    run_in_both(scenario, loop)


@both
def test_the_engine_waits_while_nobody_takes_its_rows(loop: str) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD)
        while True:
            writer.write(b"10000\r\n" + bytes(65_536) + b"\r\n")
            await writer.drain()
            sent += 65_536

    async def scenario() -> None:
        async with (
            engine(endless) as (client, _),
            client.streamed("GET", "/", Deadline.after(10)) as stream,
        ):
            pieces = stream.pieces()
            first = joined(await anext(pieces))
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert 0 < len(first) <= http_connection._BUFFER_BYTES
            # What the kernel holds is not the sidecar's.
            assert sent < 64 * 1024 * 1024
            assert len(joined(await anext(pieces))) <= http_connection._BUFFER_BYTES
            await pieces.aclose()

    run_in_both(scenario, loop)


@both
def test_a_piece_stays_as_it_is_until_the_next_is_asked_for(loop: str) -> None:
    async def scenario() -> None:
        async with (
            engine(writing(WIRE)) as (client, _),
            client.streamed("GET", "/", Deadline.after(10)) as stream,
        ):
            read = b""
            async for piece in stream.pieces():
                await asyncio.sleep(0.01)
                read += joined(piece)
            assert read == CONTENT

    run_in_both(scenario, loop)


@both
def test_a_request_sent_again_on_a_new_connection_is_read_from_that(loop: str) -> None:
    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def scenario() -> None:
        async with engine(writing(WIRE), hang_up, writing(WIRE)) as (client, seen):
            assert [await read(client), await read(client)] == [CONTENT, CONTENT]
            assert seen == [1, 1, 2]

    run_in_both(scenario, loop)
