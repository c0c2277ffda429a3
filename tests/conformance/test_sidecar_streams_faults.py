"""A stream whose engine fails as the test says: what the caller reads, what the breaker learns."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import pytest
import uvloop

from conformance.stream_client import NDJSON
from fixtures.fix_sidecar import eventually
from plan2_contract.engines import Engine
from plan2_sidecar.app import listening
from plan2_sidecar.connections import ConnectionEnvironment
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.base import EngineClient
from plan2_sidecar.errors import ConnectionLost, DeadlineExceeded, QueryRejected
from plan2_sidecar.fleet import Fleet, Member
from plan2_sidecar.query import Chunk, Form, Query
from plan2_sidecar.settings import Settings
from plan2_sidecar.state import Sidecar
from plan2_sidecar.tokens import Tokens

ROW = Chunk(b'{"n":1}\n', 1)
HANG = object()


class Scripted:
    """An engine whose streams are lists: chunks are sent, errors raised, HANG waits for ever.

    What can be called makes its chunk only then.
    """

    def __init__(self) -> None:
        self.scripts: list[list[Any]] = []
        self.asked: list[Query] = []
        self.closed = 0
        self.taken = 0

    async def open(self, engine: Engine, connection: Any) -> EngineClient:
        return self  # type: ignore[return-value]  # only its streams are asked for

    async def stream(
        self, query: Query, deadline: Deadline, form: Form
    ) -> AsyncGenerator[Chunk, None]:
        self.asked.append(query)
        try:
            for step in self.scripts.pop(0):
                if step is HANG:
                    await asyncio.Event().wait()
                if isinstance(step, Exception):
                    raise step
                self.taken += 1
                yield step() if callable(step) else step
        finally:
            self.closed += 1

    async def close(self, grace_seconds: float) -> None:
        """Nothing is open."""


@pytest.fixture
def engine() -> Scripted:
    return Scripted()


@dataclass(frozen=True)
class Running:
    """A sidecar in this process, and where it listens."""

    sidecar: Sidecar
    url: str

    @property
    def member(self) -> Member:
        return self.sidecar.fleet.member(Engine.POSTGRESQL)


@asynccontextmanager
async def started(engine: Scripted) -> AsyncIterator[Running]:
    """A sidecar whose PostgreSQL is this."""
    connections = ConnectionEnvironment({"POSTGRES_HOST": "memory", "POSTGRES_POOL_MAX": "1"})
    settings = Settings(port=0, metrics_port=0, stop_grace_seconds=2.0)
    sidecar = Sidecar(settings, Fleet(connections, opener=engine.open), Tokens(None, None))
    async with listening(sidecar) as (api, _):
        yield Running(sidecar, f"http://127.0.0.1:{api.addresses[0][1]}")


@pytest.fixture
async def running(engine: Scripted) -> AsyncIterator[Running]:
    async with started(engine) as running:
        yield running


async def ask(running: Running, query: str = "SELECT 1", **options: Any) -> tuple[int, list[Any]]:
    """The status and the lines."""
    body = {"query": query, "targetDatabase": "postgresql", "options": options}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{running.url}/api/v2/query", json=body, headers={"Accept": NDJSON}
        ) as response,
    ):
        text = await response.text()
        return response.status, [json.loads(line) for line in text.splitlines()]


def breaker(running: Running) -> list[int]:
    """Calls and failures that the breaker counted."""
    buckets = running.member.guard.breaker._buckets.values()
    return [sum(bucket[index] for bucket in buckets) for index in (0, 1)]


async def test_a_read_that_lost_its_connection_before_the_first_row_is_tried_again(
    running: Running, engine: Scripted
) -> None:
    engine.scripts = [[ConnectionLost("reset")], [ROW, ROW]]

    status, lines = await ask(running)

    assert (status, lines[:2]) == (200, [{"n": 1}, {"n": 1}])
    assert lines[2]["$end"]["meta"]["attempts"] == 2


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def test_a_slow_reader_gets_each_row_out_of_a_buffer_that_is_filled_again(
    engine: Scripted, run: Callable[[Coroutine[Any, Any, bytes]], bytes]
) -> None:
    buffer = bytearray(5000 * 11)

    def filled(number: int) -> Chunk:
        buffer[:] = b'{"n":%04d}\n' % number * 5000
        return Chunk([memoryview(buffer)[:7], memoryview(buffer)[7:]], 5000)

    async def scenario() -> bytes:
        body = {"query": "SELECT 1", "targetDatabase": "postgresql"}
        content = b""
        async with (
            started(engine) as running,
            aiohttp.ClientSession(read_bufsize=1024) as session,
            session.post(
                f"{running.url}/api/v2/query", json=body, headers={"Accept": NDJSON}
            ) as response,
        ):
            async for piece in response.content.iter_any():
                content += piece
                await asyncio.sleep(0.001)
        return content

    numbers = range(1000, 1100)
    engine.scripts = [[partial(filled, number) for number in numbers]]

    rows, end = run(scenario())[:-1].rsplit(b"\n", 1)

    assert rows + b"\n" == b"".join(b'{"n":%04d}\n' % number * 5000 for number in numbers)
    assert json.loads(end)["$end"]["rowCount"] == 500_000


async def test_a_write_is_not_tried_again(running: Running, engine: Scripted) -> None:
    engine.scripts = [[ConnectionLost("reset")], [ROW]]

    status, lines = await ask(running, "DELETE FROM t RETURNING n")

    assert (status, lines[0]["code"], lines[0]["retryable"]) == (503, "engine_unavailable", False)
    assert len(engine.asked) == 1


async def test_a_connection_lost_behind_rows_is_told_and_not_tried_again(
    running: Running, engine: Scripted
) -> None:
    engine.scripts = [[ROW, ConnectionLost("reset")], [ROW]]

    status, lines = await ask(running)

    assert (status, lines[0]) == (200, {"n": 1})
    assert lines[1]["$error"]["code"] == "engine_unavailable"
    assert (len(lines), len(engine.asked)) == (2, 1)
    assert breaker(running) == [1, 1]


async def test_a_rejection_behind_rows_is_no_failure_of_the_engine(
    running: Running, engine: Scripted
) -> None:
    engine.scripts = [[ROW, QueryRejected("division by zero", engine_code="22012")]]

    _, lines = await ask(running)

    assert lines[-1]["$error"]["engineCode"] == "22012"
    assert lines[-1]["$error"]["database"] == "postgresql"
    assert breaker(running) == [1, 0]


@pytest.mark.parametrize(
    "script", [[ROW, DeadlineExceeded("late")], [ROW, HANG]], ids=["told", "hangs"]
)
async def test_a_deadline_behind_rows_is_told(
    running: Running, engine: Scripted, script: list[Any]
) -> None:
    engine.scripts = [script]

    _, lines = await ask(running, timeoutMs=300)

    assert lines[-1]["$error"]["code"] == "deadline_exceeded"
    assert (len(lines), engine.closed) == (2, 1)


async def test_a_fault_of_ours_behind_rows_gives_nothing_away(
    running: Running, engine: Scripted
) -> None:
    engine.scripts = [[ROW, RuntimeError("the secret is 42")], [RuntimeError("again")]]

    _, lines = await ask(running)
    status, before = await ask(running)

    assert lines[-1]["$error"]["code"] == "internal"
    assert "42" not in str(lines)
    assert (status, before[0]["code"]) == (500, "internal")


async def test_a_caller_who_hangs_up_ends_the_engines_work_and_frees_its_place(
    running: Running, engine: Scripted
) -> None:
    engine.scripts = [[ROW, HANG], [ROW]]
    call = asyncio.create_task(ask(running, timeoutMs=60_000))

    async def begun() -> bool:
        return len(engine.asked) == 1

    await eventually(begun)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    async def ended() -> bool:
        return engine.closed == 1

    await eventually(ended)
    status, _ = await ask(running)

    assert status == 200
    assert running.member.guard.bulkhead.in_use == 0


async def test_rows_beyond_max_rows_are_cut_from_the_last_piece(
    running: Running, engine: Scripted
) -> None:
    engine.scripts = [[Chunk(b"1\n2\n", 2), Chunk(b'3\n"a\\rb"\n5\n', 3)]]

    _, lines = await ask(running, maxRows=4)

    assert lines[:-1] == [1, 2, 3, "a\rb"]
    assert lines[-1]["$end"]["rowCount"] == 4
    assert lines[-1]["$end"]["meta"]["truncated"] is True


async def sent(running: Running, version: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A caller of its own that has asked for rows, and read nothing yet."""
    host = running.url.removeprefix("http://")
    body = json.dumps({"query": "SELECT 1", "targetDatabase": "postgresql"})
    name, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    writer.write(
        f"POST /api/v2/query HTTP/{version}\r\nHost: {host}\r\nAccept: {NDJSON}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return reader, writer


async def test_a_caller_who_knows_no_chunks_gets_the_rows_without(
    running: Running, engine: Scripted
) -> None:
    engine.scripts = [[ROW, Chunk(ROW.data * 20_000, 20_000), ROW]]
    reader, writer = await sent(running, "1.0")

    head, _, lines = (await reader.read()).partition(b"\r\n\r\n")

    writer.close()
    assert b"Transfer-Encoding" not in head
    assert lines.startswith(ROW.data * 20_002 + b'{"$end"')
    assert len(lines.splitlines()) == 20_003


async def test_a_caller_who_stops_reading_makes_the_engine_wait(
    running: Running, engine: Scripted
) -> None:
    engine.scripts = [[Chunk(ROW.data * 100_000, 100_000)] * 500]
    reader, writer = await sent(running, "1.1")
    await reader.readexactly(1000)

    await asyncio.sleep(0.5)

    waiting = (running.member.guard.bulkhead.in_use, engine.closed)
    writer.transport.abort()
    assert waiting == (1, 0)
    assert engine.taken < 100
