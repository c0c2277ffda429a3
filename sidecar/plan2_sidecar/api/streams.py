"""A query's rows as a stream: NDJSON that ends in `$end` or `$error`, Arrow bytes as they are.

Nothing is sent before the first piece is there, so that a problem until then has its status.
After it the place in the bulkhead is held until the last row, and the deadline holds for the
whole: a caller that reads slowly makes the engine wait, one that stops reading is hung up on.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Final

from aiohttp import web
from aiohttp.hdrs import TRANSFER_ENCODING
from msgspec import UNSET

from plan2_contract.engines import Engine
from plan2_sidecar.api import body, wire
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import DeadlineExceeded, Internal, NotAcceptable, Problem
from plan2_sidecar.fleet import Member
from plan2_sidecar.query import Chunk, Form, Query
from plan2_sidecar.running import CutShort, attempted
from plan2_sidecar.state import SIDECAR

LOG = logging.getLogger(__name__)

OFFERED: Final = (Form.JSON, Form.NDJSON, Form.ARROW)
SERVED: Final[Mapping[Engine, frozenset[Form]]] = MappingProxyType(
    {
        Engine.POSTGRESQL: frozenset({Form.NDJSON}),
        Engine.CLICKHOUSE: frozenset({Form.NDJSON, Form.ARROW}),
        Engine.ARANGODB: frozenset({Form.NDJSON}),
        Engine.MONGODB: frozenset({Form.NDJSON}),
    }
)
# What a caller still gets to take the last line in, when the deadline is over.
_LAST_LINE_SECONDS: Final = 1.0


class _Gone(Exception):
    """The caller hung up."""


async def respond(
    request: web.Request, asked: wire.QueryRequest, offered: list[Form], started: float
) -> web.StreamResponse | None:
    """The query's answer as a stream; None where JSON is the form to answer in.

    `offered` are the forms the caller takes, best first. Raises Problem before the first byte.
    """
    sidecar, options = request.app[SIDECAR], asked.options
    header_ms = body.asked_ms(request)
    deadline = body.deadline(started, header_ms, options.timeout_ms, sidecar.clock)
    route = await sidecar.router.route(
        asked.query, asked.target_database, asked.operation, deadline
    )
    form = _form(route.engine, offered)
    if form is Form.JSON:
        return None
    statement = Query(
        query=route.query,
        params=asked.params,
        read_only=options.read_only,
        max_rows=options.max_rows,
    )
    outlet = _Outlet(request, form, deadline, options.max_rows)

    async def deliver(member: Member, sent: Query) -> None:
        await _deliver(member, sent, deadline, form, outlet)

    try:
        _, attempts = await attempted(sidecar, route, statement, deliver, started)
    except CutShort as cut:
        await outlet.fail(cut.problem)
    except _Gone:
        LOG.debug("%s: the caller hung up half-way", route.engine)
    except Problem:
        raise
    except Exception:
        if not outlet.begun:
            raise
        LOG.exception("a stream from %s failed", route.engine)
        await outlet.fail(Internal("the sidecar's log says more"))
    else:
        took_us = int((sidecar.clock() - started) * 1_000_000)
        truncated = True if outlet.truncated else UNSET
        await outlet.end(
            wire.AnswerMeta(
                database=route.engine,
                route=route.rung,
                attempts=attempts,
                took_us=took_us,
                truncated=truncated,
            )
        )
    return outlet.response


def _form(engine: Engine, offered: list[Form]) -> Form:
    served = SERVED.get(engine, frozenset()) | {Form.JSON}
    for form in offered:
        if form in served:
            return form
    raise NotAcceptable(
        f"{engine} answers {' or '.join(sorted(served))}, not {' or '.join(offered)}",
        database=engine,
    )


async def _deliver(
    member: Member, statement: Query, deadline: Deadline, form: Form, outlet: "_Outlet"
) -> None:
    """Every piece from the engine to the caller, behind the engine's guard."""

    async def pump(client: Any) -> None:
        stream: Callable[..., AsyncGenerator[Chunk, None]] = client.stream
        try:
            async with aclosing(stream(statement, deadline, form)) as chunks:
                async for chunk in chunks:
                    await outlet.take(chunk)
        except DeadlineExceeded as problem:
            if not outlet.begun:
                raise
            # It was the caller's pace as much as the engine's: the breaker learns nothing.
            raise CutShort(problem) from problem

    try:
        await member.use(pump, deadline, timed=False)
    except Problem as problem:
        if not outlet.begun:
            raise
        raise CutShort(problem) from problem


class _Outlet:
    """The response, as far as it was sent."""

    def __init__(
        self, request: web.Request, form: Form, deadline: Deadline, max_rows: int | None
    ) -> None:
        self.response = web.StreamResponse(headers={"Content-Type": form.value})
        self.begun = False
        self.rows = 0
        self.truncated = False
        self._chunked = False
        # True behind a write that was given up: aiohttp can send nothing after it.
        self._sending = False
        self._request = request
        self._form = form
        self._deadline = deadline
        self._max_rows = max_rows

    async def take(self, chunk: Chunk) -> None:
        """Send the piece; raises CutShort when the deadline ends first, _Gone without a caller."""
        data, rows = chunk
        if data and self._max_rows is not None and self.rows + rows > self._max_rows:
            rows = self._max_rows - self.rows
            kept = chunk.whole().split(b"\n", rows)[:rows]
            chunk = Chunk(b"".join(line + b"\n" for line in kept), rows)
            self.truncated = True
        self.rows += rows
        if not chunk.data:
            return
        try:
            with self._deadline.enforced():
                self._sending = True
                await self._send(chunk)
                self._sending = False
        except DeadlineExceeded as problem:
            raise CutShort(problem) from problem
        except ConnectionResetError as error:
            raise _Gone from error

    async def end(self, meta: wire.AnswerMeta) -> None:
        """Every row was sent."""
        whole = {"$end": {"rowCount": self.rows, "meta": meta}}
        await self._last(wire.encode(whole) + b"\n" if self._form is Form.NDJSON else b"")

    async def fail(self, problem: Problem) -> None:
        """Some rows were sent, and there will be no more."""
        if self._form is Form.NDJSON and not self._sending:
            await self._last(wire.encode({"$error": problem.document()}) + b"\n")
        else:
            # Arrow has no word for it, and a caller who does not read would not read one: a
            # connection that breaks is the sign.
            self._hang_up()

    async def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            await self.response.prepare(self._request)
            self._chunked = self.response.headers.get(TRANSFER_ENCODING) == "chunked"

    async def _send(self, chunk: Chunk) -> None:
        """Write a piece, as a chunk of its own, and wait until all of it was sent."""
        await self._begin()
        transport = self._request.transport
        if not self._chunked:
            await self.response.write(chunk.whole())
        elif transport is None or transport.is_closing():
            raise ConnectionResetError("the caller hung up")
        else:
            # aiohttp would copy it to put the chunk's size before it.
            parts = [chunk.data] if isinstance(chunk.data, bytes) else chunk.data
            size = sum(map(len, parts))
            transport.writelines((b"%x\r\n" % size, *parts, b"\r\n"))
            # Until all was sent, and may be another by then: see HotHandler.connection_made.
            await self._request.writer.drain()

    async def _last(self, line: bytes) -> None:
        try:
            async with asyncio.timeout(_LAST_LINE_SECONDS):
                await self._begin()
                await self.response.write_eof(line)
        except (TimeoutError, ConnectionResetError):
            self._hang_up()

    def _hang_up(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()
