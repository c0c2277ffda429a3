"""ArangoDB over its own HTTP cursor API: the server's JSON rows are passed on as they are.

One POST runs a query and brings its first batch, which is made large enough to be the only one
when the caller bounds the rows. Each query ends in a comment of its own, by which it is found
and killed when the caller goes away; `maxRuntime` stands behind that.
"""

import asyncio
import base64
import logging
import math
import re
import uuid
from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.parse import quote

import msgspec

from plan2_contract.connection import Login, Sql
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.arangodb_errors import in_reply
from plan2_sidecar.engines.base import Background, answering, named, text
from plan2_sidecar.engines.http import HttpEngine, Reply, authority, translate
from plan2_sidecar.errors import DeadlineExceeded, Problem, ReadOnly
from plan2_sidecar.query import Chunk, Form, Query, Result

LOG = logging.getLogger(__name__)

_BATCH: Final = 10_000
_STREAM_BATCH: Final = 1000
_MEMORY_BYTES: Final = 256 << 20
_MARGIN_SECONDS: Final = 0.05
_CLEAN_UP_SECONDS: Final = 2.0
# A quote left open runs to the end: looking for its end from each quote anew would take for ever.
_SKIPPED: Final = re.compile(
    r"""//[^\n]*|/\*.*?(?:\*/|\Z)"""
    r"""|'(?:[^'\\]++|\\.)*+(?:'|\\?\Z)|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)"""
    r"""|`(?:[^`\\]++|\\.)*+(?:`|\\?\Z)|\u00b4(?:[^\u00b4\\]++|\\.)*+(?:\u00b4|\\?\Z)""",
    re.DOTALL,
)
# An attribute or a bind parameter is no keyword; one may stand right behind a digit.
_WORD: Final = re.compile(r"([.@]?)([A-Za-z_]\w*)")
_WRITES: Final = frozenset({"INSERT", "UPDATE", "REPLACE", "REMOVE", "UPSERT"})


class _Statistics(msgspec.Struct, frozen=True, rename="camel"):
    writes_executed: int = 0


class _Extra(msgspec.Struct, frozen=True):
    stats: _Statistics = _Statistics()


class _Batch(msgspec.Struct, frozen=True, rename="camel"):
    result: msgspec.Raw = msgspec.Raw(b"[]")
    has_more: bool = False
    id: str | None = None
    count: int | None = None
    extra: _Extra = _Extra()


class _Running(msgspec.Struct, frozen=True):
    id: str
    query: str


class _Version(msgspec.Struct, frozen=True):
    version: str


_BATCHES: Final = msgspec.json.Decoder(_Batch)
_ROWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_RUNNING: Final = msgspec.json.Decoder(list[_Running])
_VERSION: Final = msgspec.json.Decoder(_Version)


class ArangoDB:
    """One server and database; reads use `ro` where there is one."""

    def __init__(self, engine: Engine, connection: Sql) -> None:
        self.engine = engine
        self._server = connection
        scheme = "https" if connection.tls else "http"
        address = authority(connection.host, connection.port)
        self._http = HttpEngine(
            engine,
            f"{scheme}://{address}/_db/{quote(connection.database, safe='')}",
            limit=connection.pool_max,
            ca_pem=connection.ca_pem,
            headers={},
        )
        self._background = Background()

    async def execute(
        self, query: Query, deadline: Deadline, transaction: str | None = None
    ) -> Result:
        """Run one query with `@name` parameters; data is the list of its rows.

        `transaction` is the id of a stream transaction, in which at most `max_rows` are read.
        """
        with answering(self.engine, translate):
            asked = _asked(query, deadline)
            login = self._login(query.read_only)
            size = _BATCH if query.max_rows is None else query.max_rows + 1
            asked |= {"batchSize": max(size, 1), "count": True}
            batch = await self._first(asked, login, deadline, transaction)
            if query.max_rows is not None:
                return self._bounded(batch, query.max_rows, login)
            return await self._whole(batch, login, deadline)

    async def stream(
        self, query: Query, deadline: Deadline, form: Form
    ) -> AsyncGenerator[Chunk, None]:
        """Run one query, and pass its rows on a batch at a time, the next when it is wanted."""
        with answering(self.engine, translate):
            asked = _asked(query, deadline)
            login = self._login(query.read_only)
            asked |= {"batchSize": _STREAM_BATCH, "ttl": math.ceil(deadline.remaining())}
            asked["options"] |= {"stream": True}
            left = math.inf if query.max_rows is None else query.max_rows + 1
            # A query that writes has written when its last row was fetched.
            to_the_end = changes(asked["query"])
            batch, seen = await self._first(asked, login, deadline), 0
            try:
                while True:
                    rows = _ROWS.decode(batch.result)
                    seen += len(rows)
                    if rows and left > 0:
                        yield _lines(rows)
                    left -= len(rows)
                    if not batch.has_more or batch.id is None or (left <= 0 and not to_the_end):
                        break
                    batch = await self._next(batch.id, login, deadline)
            except BaseException:
                self._forget(batch, login)
                raise
            self._forget(batch, login)
            if not seen:
                yield Chunk(b"", batch.extra.stats.writes_executed)

    async def call(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        body: Any = None,
        transaction: str | None = None,
    ) -> bytes:
        """A call of the sidecar's own, in the stream transaction of that id if one is given."""
        with answering(self.engine, translate):
            login = self._server.rw
            return (await self._call(method, path, login, deadline, body, transaction)).body

    async def ping(self, deadline: Deadline) -> str:
        """The server's version, as "3.12.10"."""
        with answering(self.engine, translate):
            reply = await self._call("GET", "/_api/version", self._server.rw, deadline)
            return _VERSION.decode(reply.body).version

    def pool(self) -> dict[str, int]:
        return self._http.pool()

    async def close(self, grace_seconds: float) -> None:
        await self._http.drained(grace_seconds)
        await self._background.finished(_CLEAN_UP_SECONDS)
        await self._http.close(0)

    def _login(self, read_only: bool) -> Login:
        return self._server.ro if read_only and self._server.ro else self._server.rw

    async def _first(
        self,
        asked: dict[str, Any],
        login: Login,
        deadline: Deadline,
        transaction: str | None = None,
    ) -> _Batch:
        mark = f"/* plan2 {uuid.uuid4()} */"
        # On a line of its own: the query may end in a comment.
        body = asked | {"query": f"{asked['query']}\n{mark}"}
        try:
            reply = await self._call("POST", "/_api/cursor", login, deadline, body, transaction)
        except (asyncio.CancelledError, DeadlineExceeded):
            self._background.spawn(self._kill(mark, login))
            raise
        return _BATCHES.decode(reply.body)

    def _bounded(self, batch: _Batch, max_rows: int, login: Login) -> Result:
        self._forget(batch, login)
        count = len(_ROWS.decode(batch.result)) if batch.count is None else batch.count
        if count <= max_rows:
            return Result(data=batch.result, row_count=count or batch.extra.stats.writes_executed)
        rows = _ROWS.decode(batch.result)[:max_rows]
        return Result(data=rows, row_count=len(rows), truncated=True)

    async def _whole(self, batch: _Batch, login: Login, deadline: Deadline) -> Result:
        if not batch.has_more:
            count = len(_ROWS.decode(batch.result)) if batch.count is None else batch.count
            return Result(data=batch.result, row_count=count or batch.extra.stats.writes_executed)
        rows = _ROWS.decode(batch.result)
        while batch.has_more and batch.id is not None:
            try:
                batch = await self._next(batch.id, login, deadline)
            except (asyncio.CancelledError, DeadlineExceeded):
                self._forget(batch, login)
                raise
            rows += _ROWS.decode(batch.result)
        return Result(data=rows, row_count=len(rows))

    async def _next(self, cursor: str, login: Login, deadline: Deadline) -> _Batch:
        path = f"/_api/cursor/{quote(cursor, safe='')}"
        return _BATCHES.decode((await self._call("POST", path, login, deadline)).body)

    def _forget(self, batch: _Batch, login: Login) -> None:
        """Nobody will fetch what is behind this batch."""
        if batch.has_more and batch.id is not None:
            self._background.spawn(self._drop(batch.id, login))

    async def _kill(self, mark: str, login: Login) -> None:
        """End the query that carries the mark, if it still runs."""
        deadline = Deadline.after(_CLEAN_UP_SECONDS)
        try:
            reply = await self._call("GET", "/_api/query/current", login, deadline)
            for running in _RUNNING.decode(reply.body):
                if mark in running.query:
                    path = f"/_api/query/{quote(running.id, safe='')}"
                    await self._call("DELETE", path, login, deadline)
        except (Problem, msgspec.DecodeError) as error:
            LOG.info("%s: a query is left to its maxRuntime: %s", self.engine, error)

    async def _drop(self, cursor: str, login: Login) -> None:
        """Free the rows that nobody will fetch."""
        deadline = Deadline.after(_CLEAN_UP_SECONDS)
        try:
            path = f"/_api/cursor/{quote(cursor, safe='')}"
            await self._call("DELETE", path, login, deadline)
        except Problem as problem:
            LOG.info("%s: a cursor is left to its ttl: %s", self.engine, problem.detail)

    async def _call(
        self,
        method: str,
        path: str,
        login: Login,
        deadline: Deadline,
        body: Any = None,
        transaction: str | None = None,
    ) -> Reply:
        secret = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
        headers = {"Authorization": f"Basic {secret}"}
        if transaction is not None:
            headers["x-arango-trx-id"] = transaction
        reply = await self._http.request(method, path, deadline, headers=headers, json=body)
        problem = in_reply(reply)
        if problem is not None:
            raise problem
        return reply


def _asked(query: Query, deadline: Deadline) -> dict[str, Any]:
    """The body of POST /_api/cursor; raises Problem."""
    statement, values = text(query, "AQL"), named(query)
    if query.read_only and changes(statement):
        raise ReadOnly("the query changes documents")
    return {
        "query": statement,
        "bindVars": values,
        "memoryLimit": _MEMORY_BYTES,
        "options": {"maxRuntime": max(deadline.remaining() - _MARGIN_SECONDS, 0.01)},
    }


def _lines(rows: list[msgspec.Raw]) -> Chunk:
    text = b"\n".join(rows)
    if text.count(b"\n") >= len(rows):
        # Between the values of a row, where any blank will do.
        text = b"\n".join(bytes(row).replace(b"\n", b" ") for row in rows)
    return Chunk(text + b"\n", len(rows))


def changes(statement: str) -> bool:
    """Whether the statement holds a data modification."""
    words = _WORD.findall(_SKIPPED.sub(" ", statement))
    return any(not mark and word.upper() in _WRITES for mark, word in words)
