"""The short way and aiohttp on one port: the same requests, cut anywhere, get the same answers."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from plan2_sidecar.api.listener import Runner
from plan2_sidecar.api.reply import Reply
from plan2_sidecar.server import internals
from plan2_sidecar.server.heads import Headers
from plan2_sidecar.server.hot import Answer, HotCall, HotCalls
from plan2_sidecar.server.protocol import LONGEST_BODY, Hot

DATE = b"Mon, 23 Nov 2026 12:00:00 GMT"


class Served:
    """One service behind both ways; `short` counts what went the short one."""

    def __init__(self) -> None:
        self.short = 0

    def echo(self, body: bytes) -> Reply | None:
        if body.startswith(b"!"):
            return None
        if body.startswith(b"4"):
            return Reply(
                404, b'{"code":"not_found"}', (("Retry-After", "1"),), "application/problem+json"
            )
        return Reply(200, b'{"echo":%d}' % len(body), (("RateLimit", '"default";r=1;t=2'),))

    def get(self, name: str) -> Reply:
        return Reply(200, b'{"name":"%b"}' % name.encode())

    async def late(self, body: bytes) -> Reply:
        await asyncio.sleep(0.001)
        return Reply(204)

    # the long way
    async def long_echo(self, request: web.Request) -> web.Response:
        body = await request.read()
        reply = self.echo(body) or Reply(200, b'{"long":%d}' % len(body))
        return reply.response()

    async def long_get(self, request: web.Request) -> web.Response:
        return self.get(request.match_info["name"]).response()

    async def long_late(self, request: web.Request) -> web.Response:
        return (await self.late(await request.read())).response()

    def calls(self) -> HotCalls:
        def counting(answer: Answer) -> Answer:
            self.short += answer is not None
            return answer

        return HotCalls(
            (
                HotCall("POST", "/echo", "/echo", lambda r: counting(self.echo(r.body))),
                HotCall("GET", "/get/", "/get/{name}", lambda r: counting(self.get(r.argument))),
                HotCall("PUT", "/late", "/late", lambda r: counting(self.late(r.body))),
            )
        )


class Side:
    """A listening server."""

    def __init__(self, runner: Runner, served: Served) -> None:
        self.served = served
        self.port: int = runner.addresses[0][1]


@contextlib.asynccontextmanager
async def listening(*, short: bool) -> AsyncIterator[Side]:
    served = Served()
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.router.add_post("/echo", served.long_echo)
    app.router.add_get("/get/{name}", served.long_get)
    app.router.add_put("/late", served.long_late)
    runner = Runner(app, access_log=None, handler_cancellation=True)
    if short:

        def admits(headers: Headers, *, on_socket: bool) -> bool:
            return headers.authorization != "Bearer wrong"

        runner.hot = Hot(
            served.calls(), admits, lambda error: Reply(500), lambda *_: None, lambda: 0.0, 60_000
        )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Side(runner, served)
    await runner.cleanup()


@pytest.fixture(autouse=True)
def fixed_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals, "date", lambda: DATE)
    monkeypatch.setattr("aiohttp.web_response.rfc822_formatted_time", lambda: DATE.decode())


@pytest.fixture
async def short() -> AsyncIterator[Side]:
    async with listening(short=True) as side:
        yield side


@pytest.fixture
async def long() -> AsyncIterator[Side]:
    async with listening(short=False) as side:
        yield side


def request(line: str, body: bytes = b"", *more: str, host: str = "localhost") -> bytes:
    headers = [line, f"Host: {host}", *more]
    if body or line.startswith(("POST", "PUT")):
        headers.append(f"Content-Length: {len(body)}")
    return "\r\n".join(headers).encode() + b"\r\n\r\n" + body


def chunked(line: str, body: bytes) -> bytes:
    head = f"{line}\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


ECHO = request("POST /echo HTTP/1.1", b'{"a": 1}')
LAST = request("GET /get/last HTTP/1.1", b"", "Connection: close")

KINDS = {
    "echo": ECHO,
    "problem": request("POST /echo HTTP/1.1", b"404"),
    "not mine": request("POST /echo HTTP/1.1", b"!"),
    "empty": request("POST /echo HTTP/1.1"),
    "get": request("GET /get/some-name HTTP/1.1"),
    "late": request("PUT /late HTTP/1.1", b"x"),
    "unknown path": request("GET /nothing HTTP/1.1"),
    "unknown method": request("DELETE /echo HTTP/1.1"),
    "refused": request("POST /echo HTTP/1.1", b"x", "Authorization: Bearer wrong"),
    "encoded": request("GET /get/a%2Fb HTTP/1.1"),
    "with a query": request("GET /get/a?b=c HTTP/1.1"),
    "with a deadline": request("POST /echo HTTP/1.1", b"x", "X-Deadline-Ms: 100"),
    "accepting": request("GET /get/a HTTP/1.1", b"", "Accept: text/html"),
    "long": request("POST /echo HTTP/1.1", b"x" * (LONGEST_BODY + 1)),
    "nearly long": request("POST /echo HTTP/1.1", b"x" * LONGEST_BODY),
    "chunked": chunked("POST /echo HTTP/1.1", b"hello"),
    "expecting": request("POST /echo HTTP/1.1", b"hello", "Expect: 100-continue"),
    "many headers": request("GET /get/a HTTP/1.1", b"", *(f"X-{n}: y" for n in range(90))),
    "old": b"GET /get/a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    "blank line first": b"\r\n" + request("GET /get/a HTTP/1.1"),
    "not ascii": "GET /get/a HTTP/1.1\r\nHost: a\r\nX-A: ü\r\n\r\n".encode(),
}


# aiohttp answers these alone, and forgets what came in the same piece before them.
MALFORMED = {
    "no host": b"GET /get/a HTTP/1.1\r\n\r\n",
    "two lengths": request("POST /echo HTTP/1.1", b"ab", "Content-Length: 1"),
    "bad length": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
    "folded": b"GET /get/a HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
    "bare line feed": b"GET /get/a HTTP/1.1\nHost: a\n\n",
    "no http": b"\x16\x03\x01 hello\r\n\r\n",
    "control": b"GET /get/a HTTP/1.1\r\nHost: a\r\nX-A: b\x00c\r\n\r\n",
}


async def replies(side: Side, pieces: list[bytes], pause: float = 0) -> bytes:
    """All the server says until it closes, which the last request asks for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    try:
        for piece in pieces:
            writer.write(piece)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(pause)
        answer = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                answer = await reader.read()
        return answer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def both(short: Side, long: Side, pieces: list[bytes]) -> bytes:
    expected = await replies(long, pieces)
    assert await replies(short, pieces) == expected
    return expected


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_gets_the_same_answer(short: Side, long: Side, kind: str) -> None:
    answer = await both(short, long, [ECHO, KINDS[kind], ECHO, LAST])
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("kind", MALFORMED)
async def test_what_is_malformed_gets_the_same_answer(short: Side, long: Side, kind: str) -> None:
    await both(short, long, [MALFORMED[kind], LAST])


@pytest.mark.parametrize("kind", MALFORMED)
async def test_what_is_malformed_later_ends_the_connection(short: Side, kind: str) -> None:
    answer = await replies(short, [ECHO, MALFORMED[kind], LAST])
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"last" not in answer or kind == "folded" or kind == "bare line feed"


@pytest.mark.parametrize("kind", ["echo", "get", "late", "problem"])
async def test_plain_requests_go_the_short_way(short: Side, kind: str) -> None:
    await replies(short, [KINDS["unknown path"]] + [KINDS[kind]] * 3 + [LAST], pause=0.05)
    assert short.served.short == 3


async def test_cut_at_every_byte(short: Side, long: Side) -> None:
    whole = KINDS["echo"] + KINDS["late"] + KINDS["get"]
    expected = await replies(long, [whole, LAST])
    for at in range(len(whole)):
        assert await replies(short, [whole[:at], whole[at:], LAST]) == expected, at


async def test_one_byte_at_a_time(short: Side, long: Side) -> None:
    whole = KINDS["echo"] + KINDS["late"] + KINDS["chunked"] + KINDS["get"]
    assert len(await both(short, long, [bytes([b]) for b in whole] + [LAST])) > 400


@settings(derandomize=True, deadline=None, max_examples=150)
@given(data=st.data())
async def test_any_mix_cut_anywhere(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
    stream = b"".join(KINDS[kind] for kind in kinds)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5).map(sorted))
    edges = [0, *cuts, len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)] + [LAST]
    async with listening(short=True) as short, listening(short=False) as long:
        await both(short, long, pieces)


class Waiting:
    """A short call that waits for `go`, and knows when it was cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.answered = 0

    async def answer(self) -> Reply:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.answered += 1
        return Reply(200, b"x" * 1000)

    def hot(self) -> Hot:
        calls = (
            HotCall("GET", "/wait", "/wait", lambda _: self.answer()),
            HotCall("GET", "/now", "/now", lambda _: self.now()),
        )
        return Hot(
            HotCalls(calls),
            lambda headers, *, on_socket: True,
            lambda error: Reply(500),
            lambda *_: None,
            lambda: 0.0,
            60_000,
        )

    def now(self) -> Reply:
        self.answered += 1
        return Reply(200, b"x" * 1000)


@pytest.fixture
async def waiting() -> AsyncIterator[tuple[Waiting, Runner]]:
    waiting = Waiting()
    runner = Runner(
        web.Application(), access_log=None, handler_cancellation=True, shutdown_timeout=5.0
    )
    runner.hot = waiting.hot()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield waiting, runner
    waiting.go.set()
    await runner.cleanup()


WAIT = request("GET /wait HTTP/1.1")
NOW = request("GET /now HTTP/1.1")


async def calling(runner: Runner, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1], limit=1)
    # The first request may come before aiohttp is ready to be asked whether it is idle.
    await asyncio.sleep(0.05)
    writer.write(sent)
    return reader, writer


async def test_a_client_who_hangs_up_cancels_its_call(waiting: tuple[Waiting, Runner]) -> None:
    call, runner = waiting
    _, writer = await calling(runner, WAIT)
    await asyncio.wait_for(call.begun.wait(), 10)

    writer.close()

    await asyncio.wait_for(call.cancelled.wait(), 10)


async def test_a_call_under_way_is_finished_before_the_end(
    waiting: tuple[Waiting, Runner],
) -> None:
    call, runner = waiting
    reader, writer = await calling(runner, WAIT)
    await asyncio.wait_for(call.begun.wait(), 10)

    ending = asyncio.create_task(runner.cleanup())
    await asyncio.sleep(0.1)
    call.go.set()
    answer = await asyncio.wait_for(reader.read(), 10)
    await asyncio.wait_for(ending, 10)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"x" * 1000)
    assert not call.cancelled.is_set()
    writer.close()


async def test_who_asks_on_while_a_call_is_under_way_is_held_up(
    waiting: tuple[Waiting, Runner],
) -> None:
    call, runner = waiting
    _, writer = await calling(runner, WAIT)
    await asyncio.wait_for(call.begun.wait(), 10)
    taken = await taken_until_it_stalls(writer)

    assert taken < 32 * 1024 * 1024
    writer.transport.abort()


async def test_who_reads_no_answers_gets_no_more_of_them(waiting: tuple[Waiting, Runner]) -> None:
    call, runner = waiting
    reader, writer = await calling(runner, NOW)
    await reader.read(1)
    await taken_until_it_stalls(writer)
    answered = call.answered
    await asyncio.sleep(0.2)

    assert call.answered == answered
    assert answered < 100_000
    writer.transport.abort()


async def taken_until_it_stalls(writer: asyncio.StreamWriter) -> int:
    """How many bytes of requests the server and the kernel take from one who does not read."""
    piece = NOW * 1000
    taken = 0
    with contextlib.suppress(TimeoutError):
        while taken < 64 * 1024 * 1024:
            writer.write(piece)
            async with asyncio.timeout(1.0):
                await writer.drain()
            taken += len(piece)
    return taken
