"""The sidecar's calls on the short way and through aiohttp: the same requests, the same bytes.

Two sidecars on the same servers, one of them without the short way. Each has names of its own
for what it keeps, of one length, which are made alike in what both answer; clocks stand still.
"""

import asyncio
import contextlib
import io
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.cache_lab import Given, fresh_database, key_value, sql
from fixtures.engine_server import EngineServer
from fixtures.fix_clock import HandClock
from fixtures.fix_limits import CounterMemory, Crowd
from plan2_contract.connection import Engines
from plan2_sidecar import app
from plan2_sidecar.api import short
from plan2_sidecar.api.door import Door
from plan2_sidecar.api.listener import Runner
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.limits.limiter import Limiter
from plan2_sidecar.server import internals
from plan2_sidecar.settings import Settings
from plan2_sidecar.state import Sidecar
from plan2_sidecar.tokens import Tokens

DATE = b"Mon, 23 Nov 2026 12:00:00 GMT"
TOKEN = "secret"
MOST_BODY = 4096
# In what is sent, and instead of its own in what a sidecar answers.
NAME = b"NAME--------"


@dataclass
class Side:
    """One sidecar, listening on a port and on a socket."""

    letter: str
    sidecar: Sidecar
    path: Path
    port: int = 0
    short: int = field(default=0, init=False)

    def name(self, example: int) -> bytes:
        return f"{self.letter}{example:011d}".encode()

    async def replies(
        self, pieces: list[bytes], example: int, *, on_socket: bool = False, pause: float = 0
    ) -> bytes:
        """All it says until it closes, which the last request asks for."""
        name = self.name(example)
        if on_socket:
            reader, writer = await asyncio.open_unix_connection(self.path)
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            whole = io.BytesIO(b"".join(pieces).replace(NAME, name))
            for piece in pieces:
                writer.write(whole.read(len(piece)))
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
                await asyncio.sleep(pause)
            answer = b""
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(20):
                    answer = await reader.read()
            return answer.replace(name, NAME)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@dataclass
class Sides:
    """Both, and how many examples they were shown."""

    short: Side
    long: Side
    examples: int = 0

    async def both(self, pieces: list[bytes], *, on_socket: bool = False) -> bytes:
        """What both say."""
        self.examples += 1
        expected = await self.long.replies(pieces, self.examples, on_socket=on_socket)
        said = await self.short.replies(pieces, self.examples, on_socket=on_socket)
        assert said == expected
        return expected


@contextlib.asynccontextmanager
async def listening(letter: str, engines: Engines, folder: Path) -> AsyncIterator[Side]:
    settings = Settings(api_token=TOKEN, max_body_bytes=MOST_BODY, stop_grace_seconds=1.0)
    clock = HandClock(1000.0)
    tokens = Tokens(TOKEN, None)
    sidecar = Sidecar(settings, Fleet(Given(engines)), tokens, clock=clock)
    # The store's own milliseconds pass; those of its scripts in memory do not.
    sidecar.limiter = Limiter(CounterMemory(clock), Crowd(), clock)
    side = Side(letter, sidecar, folder / f"{letter}.sock")
    runner = Runner(app.build(sidecar), access_log=None, handler_cancellation=True)
    if letter == "s":
        runner.hot = short.hot(sidecar, Door(settings, tokens))
        counted = runner.hot.counted

        def counting(*about: object) -> None:
            side.short += 1
            counted(*about)  # type: ignore[arg-type]  # as they came

        runner.hot.counted = counting
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await web.UnixSite(runner, side.path).start()
    side.port = runner.addresses[0][1]
    yield side
    await runner.cleanup()


@pytest.fixture(scope="module")
def fixed_date() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(internals, "date", lambda: DATE)
        patch.setattr("aiohttp.web_response.rfc822_formatted_time", lambda: DATE.decode())
        yield


@pytest.fixture(scope="module")
async def sides(
    fixed_date: None,
    dragonflydb: EngineServer,
    postgresql: EngineServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Sides]:
    folder = tmp_path_factory.mktemp("sockets")
    async with fresh_database(postgresql) as database:
        engines = Engines(dragonflydb=key_value(dragonflydb), postgresql=sql(postgresql, database))
        async with listening("s", engines, folder) as one, listening("l", engines, folder) as other:
            yield Sides(one, other)


def request(
    line: str,
    body: object = None,
    *more: str,
    host: str = "localhost",
    token: str | None = TOKEN,
    content_type: str = "application/json",
) -> bytes:
    headers = [f"{line} HTTP/1.1", f"Host: {host}", *more]
    if token is not None:
        headers.append(f"Authorization: Bearer {token}")
    content = b""
    if body is not None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers += [f"Content-Type: {content_type}", f"Content-Length: {len(content)}"]
    return "\r\n".join(headers).encode() + b"\r\n\r\n" + content


N = NAME.decode()
CACHE, SESSION = f"/api/v2/cache/{N}", f"/api/v2/sessions/{N}"
CHECK, QUERY = "/api/v2/rate-limit/check", "/api/v2/query"
LAST = request("GET /livez", None, "Connection: close")
ASKED = {"clientId": N, "limit": 3, "windowMs": 60_000}
SELECT = {"query": "SELECT $1::int AS n", "params": [7], "targetDatabase": "postgresql"}

PLAIN = {
    "check": request(f"POST {CHECK}", ASKED),
    "check at a look": request(f"POST {CHECK}", {**ASKED, "peek": True}),
    "check of too much": request(f"POST {CHECK}", {**ASKED, "cost": 4}),
    "check by gcra": request(f"POST {CHECK}", {**ASKED, "algorithm": "gcra"}),
    "cache get": request(f"GET {CACHE}"),
    "cache put": request(f"PUT {CACHE}", {"value": {"a": [1, "ü"]}, "ttl": 60}),
    "cache put for ever": request(f"PUT {CACHE}", '{"value": "ü\\u00fc"}'.encode()),
    "cache delete": request(f"DELETE {CACHE}"),
    "cache get in a namespace": request(f"GET {CACHE}", None, "Plan2-Namespace: orders"),
    "cache put in a namespace": request(f"PUT {CACHE}", {"value": 1}, "Plan2-Namespace: orders"),
    "session get": request(f"GET {SESSION}"),
    "session put": request(f"PUT {SESSION}", {"data": {"user": 1}}),
    "session put that is lost": request(f"PUT {SESSION}", {"data": 1, "durable": False}),
    "session delete": request(f"DELETE {SESSION}"),
    "select": request(f"POST {QUERY}", SELECT),
    "select of nothing": request(
        f"POST {QUERY}", {"query": "SELECT 1 AS n WHERE false", "targetDatabase": "postgres"}
    ),
    "rejected": request(f"POST {QUERY}", {"query": "SELECT", "targetDatabase": "postgresql"}),
    "too few params": request(f"POST {QUERY}", {**SELECT, "params": []}),
    "command": request(
        f"POST {QUERY}", {"query": ["SET", f"raw-{N}", "v"], "targetDatabase": "dragonflydb"}
    ),
    "raw get": request(f"POST {QUERY}", {"query": f"GET raw-{N}", "targetDatabase": "dragonfly"}),
    "no such engine": request(f"POST {QUERY}", {"query": "x", "targetDatabase": "oracle"}),
    "engine that is not there": request(
        f"POST {QUERY}", {"query": "SELECT 1", "targetDatabase": "clickhouse"}
    ),
    "with a deadline": request(f"POST {QUERY}", SELECT, "X-Deadline-Ms: 4000"),
}
REST = {
    "no token": request(f"GET {CACHE}", token=None),
    "wrong token": request(f"GET {SESSION}", token="wrong"),
    "wrong token for a check": request(f"POST {CHECK}", ASKED, token=TOKEN + "x"),
    "another host": request(f"GET {CACHE}", host="evil.example"),
    "another host for a query": request(f"POST {QUERY}", SELECT, host="evil.example:7420"),
    "host with a port": request(f"GET {CACHE}", host="127.0.0.1:7420"),
    "a foreign page": request(f"GET {CACHE}", None, "Origin: http://evil.example"),
    "a page of ours": request(f"GET {CACHE}", None, "Origin: http://localhost:3000"),
    "bad deadline": request(f"GET {CACHE}", None, "X-Deadline-Ms: 0"),
    "a deadline of words": request(f"POST {CHECK}", ASKED, "X-Deadline-Ms: soon"),
    "a long deadline": request(f"PUT {CACHE}", {"value": 1}, "X-Deadline-Ms: 60001"),
    "bad namespace": request(f"GET {CACHE}", None, "Plan2-Namespace: a/b"),
    "empty namespace": request(f"GET {CACHE}", None, "Plan2-Namespace:"),
    "not json": request(f"PUT {CACHE}", b'{"value": '),
    "not utf-8": request(f"PUT {CACHE}", b'{"value": "\xff"}'),
    "not utf-8 in a session": request(f"PUT {SESSION}", b'{"data": "\xff"}'),
    "not utf-8 in a query": request(f"POST {QUERY}", b'{"query": "\xff"}'),
    "another content type": request(f"PUT {CACHE}", {"value": 1}, content_type="text/plain"),
    "json with a charset": request(
        f"PUT {CACHE}", {"value": 2}, content_type="application/json; charset=utf-8"
    ),
    "json of a kind": request(f"PUT {CACHE}", {"value": 3}, content_type="application/a+json"),
    "unknown member": request(f"PUT {CACHE}", {"value": 1, "more": 1}),
    "bad ttl": request(f"PUT {SESSION}", {"data": 1, "ttl": 0}),
    "nothing in it": request(f"POST {CHECK}", b""),
    "no client": request(f"POST {CHECK}", {"limit": 1}),
    "nested deeply": request(f"PUT {CACHE}", b'{"value": ' + b"[" * 1800 + b"]" * 1800 + b"}"),
    "get with a body": request(f"GET {CACHE}", {"a": 1}),
    "without a target": request(f"POST {QUERY}", {"query": "GET raw", "operation": "cache"}),
    "as lines": request(f"POST {QUERY}", SELECT, "Accept: application/x-ndjson"),
    "as nothing known": request(f"POST {QUERY}", SELECT, "Accept: text/html"),
    "enforced": request(f"POST {CHECK}?enforce=1", {**ASKED, "cost": 4}),
    "unknown parameter": request(f"POST {CHECK}?more=1", ASKED),
    "encoded": request(f"GET {CACHE}%2Fb"),
    "too long a name": request(f"GET {CACHE}{'x' * 512}"),
    "no name": request("GET /api/v2/cache/"),
    "dots": request("GET /api/v2/cache/.."),
    "another method": request(f"POST {SESSION}", {"data": 1}),
    "head": request(f"HEAD {CACHE}"),
    "nowhere": request(f"GET /{N}"),
    "too large": request(f"PUT {CACHE}", {"value": "x" * MOST_BODY}),
    "too large for a query": request(f"POST {QUERY}", {**SELECT, "params": ["x" * MOST_BODY]}),
    "in chunks": request(f"PUT {CACHE}", None, "Content-Type: application/json")[:-2]
    + b'Transfer-Encoding: chunked\r\n\r\nb\r\n{"value":1}\r\n0\r\n\r\n',
    "v1": request("POST /api/v1/query", {"sql": "SELECT 1 AS n"}),
}
KINDS = PLAIN | REST
MALFORMED = {
    "no host": f"GET {CACHE} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode(),
    "two lengths": request(f"PUT {CACHE}", {"value": 1}, "Content-Length: 1"),
    "two hosts": request(f"GET {CACHE}", None, "Host: localhost"),
    "no http": b"\x16\x03\x01 hello\r\n\r\n",
    "control": request(f"GET {CACHE}", None, "X-A: b\x00c"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_call_is_answered_alike(sides: Sides, kind: str) -> None:
    pieces = [PLAIN["check"], KINDS[kind], KINDS[kind], PLAIN["cache get"], LAST]
    assert (await sides.both(pieces)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("kind", KINDS)
async def test_so_it_is_on_the_socket(sides: Sides, kind: str) -> None:
    answer = await sides.both([KINDS[kind], LAST], on_socket=True)
    assert answer.startswith(b"HTTP/1.1 ")
    assert b"misdirected" not in answer


@pytest.mark.parametrize("kind", MALFORMED)
async def test_what_is_malformed_is_answered_alike(sides: Sides, kind: str) -> None:
    await sides.both([MALFORMED[kind], LAST])


@pytest.mark.parametrize("kind", PLAIN)
async def test_plain_calls_go_the_short_way(sides: Sides, kind: str) -> None:
    before = sides.short.short
    sides.examples += 1
    pieces = [KINDS["nowhere"], KINDS[kind], KINDS[kind], LAST]
    await sides.short.replies(pieces, sides.examples, pause=0.05)
    assert sides.short.short - before == 2


async def test_calls_cut_at_every_byte(sides: Sides) -> None:
    kinds = ("check", "cache put", "cache get", "select")
    whole = b"".join(PLAIN[kind] for kind in kinds)
    sides.examples += 1
    expected = await sides.long.replies([whole, LAST], sides.examples)
    for at in range(len(whole)):
        sides.examples += 1
        said = await sides.short.replies([whole[:at], whole[at:], LAST], sides.examples)
        assert said == expected, at


async def test_one_byte_at_a_time(sides: Sides) -> None:
    whole = b"".join(PLAIN[kind] for kind in ("session put", "session get", "session get"))
    await sides.both([bytes([byte]) for byte in whole] + [LAST])


@settings(derandomize=True, deadline=None, max_examples=100)
@given(data=st.data())
async def test_any_mix_cut_anywhere(sides: Sides, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=8))
    stream = b"".join(KINDS[kind] for kind in kinds)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5).map(sorted))
    pieces = [stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)])]
    await sides.both([*pieces, LAST], on_socket=data.draw(st.booleans()))


async def test_an_unforeseen_failure_is_answered_alike(
    sides: Sides, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for side in (sides.short, sides.long):
        service = side.sidecar.sessions
        monkeypatch.setattr(service, "get", _fails)
        monkeypatch.setattr(service, "look_here", lambda identity: None)

    later = await sides.both([PLAIN["session get"], PLAIN["cache get"], LAST])
    monkeypatch.setattr(sides.short.sidecar.sessions, "look_here", _fails_at_once)
    at_once = await sides.both([PLAIN["session get"], PLAIN["cache get"], LAST])

    assert later == at_once
    assert later.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert later.endswith(b'{"status":"ok"}')
    assert "nobody thought of it" in caplog.text


async def _fails(*_: object, **__: object) -> None:
    raise ZeroDivisionError("nobody thought of it")


def _fails_at_once(identity: str) -> None:
    raise ZeroDivisionError("nobody thought of it")
