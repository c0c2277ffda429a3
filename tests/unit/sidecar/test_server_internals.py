"""What the short way leans on in aiohttp's inside, held to the aiohttp that is installed."""

import asyncio
import email.utils
import re
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from fixtures.fix_sidecar import eventually
from plan2_sidecar.api.listener import Runner
from plan2_sidecar.server import internals
from plan2_sidecar.server.hot import HotCalls
from plan2_sidecar.server.protocol import Hot, HotHandler

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def until(holds: Callable[[], bool]) -> None:
    async def told() -> bool:
        return holds()

    await eventually(told, every=0.01)


class Seen:
    """The server's connections, and what its one handler does."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go = asyncio.Event()
        self.runner: Runner | None = None

    async def handle(self, request: web.Request) -> web.Response:
        self.entered.set()
        await self.go.wait()
        return web.Response(text="done")

    async def connection(self) -> HotHandler:
        """The one connection there is."""
        assert self.runner is not None
        server = self.runner.server
        assert server is not None
        await until(lambda: bool(server.connections))
        connection = server.connections[0]
        assert isinstance(connection, HotHandler)
        return connection


@pytest.fixture
async def seen() -> AsyncIterator[Seen]:
    seen = Seen()
    app = web.Application()
    app.router.add_get("/", seen.handle)
    seen.runner = Runner(app, access_log=None, handler_cancellation=True, keepalive_timeout=75)
    await seen.runner.setup()
    await web.TCPSite(seen.runner, "127.0.0.1", 0).start()
    yield seen
    seen.go.set()
    await seen.runner.cleanup()


async def connected(seen: Seen) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert seen.runner is not None
    return await asyncio.open_connection("127.0.0.1", seen.runner.addresses[0][1])


async def until_idle(handler: web.RequestHandler, wanted: bool) -> None:
    await until(lambda: internals.is_idle(handler) is wanted)


async def test_a_connection_is_idle_before_and_after_a_request_and_not_during_it(
    seen: Seen,
) -> None:
    reader, writer = await connected(seen)
    handler = await seen.connection()
    await until_idle(handler, True)

    writer.write(GET)
    await seen.entered.wait()
    during = internals.is_idle(handler)
    seen.go.set()
    await reader.readuntil(b"done")
    await until_idle(handler, True)

    assert during is False
    writer.close()


async def test_a_request_that_was_parsed_and_not_begun_is_not_idle(seen: Seen) -> None:
    _, writer = await connected(seen)
    handler = await seen.connection()
    await until_idle(handler, True)

    handler.data_received(GET)

    assert internals.is_idle(handler) is False
    writer.close()


async def test_a_connection_that_is_closing_is_not_idle(seen: Seen) -> None:
    _, writer = await connected(seen)
    handler = await seen.connection()
    await until_idle(handler, True)

    handler.close()

    assert internals.is_idle(handler) is False
    writer.close()


async def test_nothing_is_left_of_a_request_that_was_given_whole(seen: Seen) -> None:
    """So that the next bytes may be answered without the parser that read these."""
    reader, writer = await connected(seen)
    handler = await seen.connection()
    seen.go.set()
    await until_idle(handler, True)
    for _ in range(2):
        writer.write(GET)
        await reader.readuntil(b"done")
        await until_idle(handler, True)

    assert not handler._messages
    assert handler._parser is not None
    writer.close()


async def test_an_answer_gives_a_connection_its_idle_time_again(seen: Seen) -> None:
    _, writer = await connected(seen)
    handler = await seen.connection()
    await until_idle(handler, True)

    now = asyncio.get_running_loop().time()

    internals.touch(handler, now)
    # aiohttp calls this when the time it had set before is over.
    handler._process_keepalive()
    kept = handler.transport is not None
    internals.touch(handler, now - 80)
    handler._process_keepalive()

    assert kept
    assert handler.transport is None
    writer.close()


async def test_a_connection_is_paused_where_its_reader_does_not_read(seen: Seen) -> None:
    _, writer = await connected(seen)
    handler = await seen.connection()

    assert handler.writing_paused is False
    handler.pause_writing()
    assert handler.writing_paused is True
    handler.resume_writing()
    assert handler.writing_paused is False
    writer.close()


async def test_date_and_server_are_what_aiohttp_writes(seen: Seen) -> None:
    reader, writer = await connected(seen)
    seen.go.set()
    before = internals.date()
    writer.write(GET)
    head = await reader.readuntil(b"\r\n\r\n")
    after = internals.date()

    match = re.search(rb"Date: (.*)\r\nServer: (.*)\r\n", head)
    assert match is not None
    assert before <= match[1] <= after or match[1] in (before, after)
    assert match[2] == internals.SERVER
    assert email.utils.parsedate_to_datetime(after.decode())
    writer.close()


@pytest.mark.parametrize("status", [200, 204, 400, 404, 413, 422, 424, 429, 500, 503, 504, 599])
def test_reasons_are_what_aiohttp_writes(status: int) -> None:
    assert internals.reason(status) == web.Response(status=status).reason


async def test_the_server_makes_our_handlers(seen: Seen) -> None:
    """`listener` puts its own class in the place of the server that aiohttp makes."""
    hot = Hot(
        HotCalls(()),
        lambda headers, *, on_socket: True,
        lambda error: pytest.fail(str(error)),
        lambda *_: None,
        lambda: 0.0,
        60_000,
    )
    runner = Runner(web.Application(), access_log=None)
    runner.hot = hot
    await runner.setup()
    server = runner.server
    assert server is not None

    handler = server()

    assert isinstance(handler, HotHandler)
    assert handler._hot is hot
    assert handler.keepalive_timeout == Runner(web.Application())._kwargs.get(
        "keepalive_timeout", 3630
    )
    await runner.cleanup()


async def test_what_goes_to_this_machine_is_not_paced(seen: Seen) -> None:
    _, writer = await connected(seen)

    handler = await seen.connection()
    assert handler.transport is not None
    connection = handler.transport.get_extra_info("socket")
    name = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    assert name.rstrip(b"\0") == b"reno"
    writer.close()
