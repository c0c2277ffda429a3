"""PostgreSQL over asyncpg: held connections, prepared statements, rows encoded by the server.

A statement that returns rows is wrapped so that PostgreSQL answers one JSON text, which is
passed on as it is; what cannot be wrapped (EXPLAIN, SHOW, CALL) is fetched and encoded here in
the same form. A connection is reset only after a statement that may have changed the session.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg
import msgspec

from plan2_contract.connection import Sql
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import postgresql_codecs as codecs
from plan2_sidecar.engines import postgresql_stream, sqltext
from plan2_sidecar.engines.base import (
    CONNECT_SECONDS,
    Calls,
    answering,
    positional,
    text,
    tls_context,
)
from plan2_sidecar.engines.pool import Pool
from plan2_sidecar.engines.postgresql_errors import translate, translate_connecting
from plan2_sidecar.errors import ConnectionLost, InvalidRequest, ParameterMismatch, QueryRejected
from plan2_sidecar.query import Chunk, Form, Query, Result

T = TypeVar("T")

_STATEMENTS: Final = 100
_MEND_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 2.0
_SESSION: Final = {
    "application_name": "plan2-sidecar",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    # The deadline cancels; this ends what a cancel that was lost, or a killed sidecar, left behind.
    "statement_timeout": "65s",
}
_RESET: Final = (
    "ROLLBACK; RESET SESSION AUTHORIZATION; RESET ALL; CLOSE ALL; UNLISTEN *; "
    "SELECT pg_advisory_unlock_all(); DISCARD TEMP"
)
_ROW: Final = "plan2_row"
_ALL_ROWS: Final = f"coalesce(json_agg({_ROW}.*), '[]')::text, count(*)"
_EACH_ROW: Final = f"row_to_json({_ROW}.*)::text"
_AS_QUERY: Final = frozenset({"SELECT", "VALUES", "TABLE", "WITH"})
_AS_STEP: Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})
_HELD: Final = frozenset(
    {"ABORT", "BEGIN", "COMMIT", "END", "RELEASE", "ROLLBACK", "SAVEPOINT", "START"}
    | {"CLOSE", "DECLARE", "FETCH", "MOVE", "DEALLOCATE", "EXECUTE", "PREPARE"}
    | {"COPY", "LISTEN", "UNLISTEN"}
)
_FUNCTIONS: Final = (
    r"(?:set_config|setseed|pg_temp\w*|lo_open|dblink\w*|pg_(?:try_)?advisory_lock\w*)"
)
_CHANGES_SESSION: Final = re.compile(
    r"^[\s(;]*(?:SET|RESET|DISCARD|DO|CALL|LOAD|LOCK)\b"
    rf"|\b(?:TEMP|TEMPORARY|{_FUNCTIONS})\b",
    re.IGNORECASE,
)
# As a quoted name, which is blanked out where the words are looked for.
_QUOTED_CHANGE: Final = re.compile(f'"{_FUNCTIONS}"')
_ROWS: Final = msgspec.json.Decoder(list[msgspec.Raw])

if TYPE_CHECKING:
    # Generic in its stubs alone.
    Connection = asyncpg.Connection[asyncpg.Record]
    Prepared = asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]


@dataclass(slots=True)
class _Statement:
    """`as_json`: its rows are JSON text, or one row with all of them and their count.

    `columns` of the rows are None where the server alone can read them. `parameters`, how many
    there are, is None until somebody asks.
    """

    prepared: Prepared
    as_json: bool
    changes_session: bool
    columns: tuple[str, ...] | None
    parameters: int | None = None


@dataclass(slots=True)
class _Session:
    """A connection with what has been prepared on it and the codecs it was taught."""

    connection: Connection
    statements: OrderedDict[tuple[str, int | None], _Statement] = field(default_factory=OrderedDict)
    taught: set[str] = field(default_factory=set)
    dirty: bool = False


class Transaction:
    """One transaction: its connection for our own statements, `execute` for a caller's."""

    def __init__(self, session: _Session) -> None:
        self._session = session
        self.connection = session.connection

    async def execute(self, query: Query) -> Result:
        """Run a caller's statement in this transaction, as `PostgreSQL.execute` would."""
        statement, values = sql(query)
        return await _run(self._session, statement, values, query.max_rows)


class PostgreSQL:
    """One server, two roles: statements that must only read use `ro` where there is one."""

    def __init__(self, engine: Engine, connection: Sql) -> None:
        self.engine = engine
        self._server = connection
        self._tls = tls_context(connection.tls, connection.ca_pem)
        self._pool: Pool[_Session] = Pool(self._connect, _disconnect, connection.pool_max)
        self._calls = Calls()
        self._answering = answering(engine, translate)

    async def execute(self, query: Query, deadline: Deadline) -> Result:
        """Run one statement with `$1` parameters; data is a list of row objects."""
        with self._answering:
            statement, values = sql(query)
            with self._calls, deadline.enforced():
                if query.read_only:
                    async with self._session(True) as session:
                        return await _run(session, statement, values, query.max_rows)
                taken = self._pool.take("rw")
                if taken is None or taken.connection.is_closed():
                    taken = await self._acquire("rw", taken)
                session = taken
                try:
                    return await _run(session, statement, values, query.max_rows)
                except BaseException as error:
                    self._spoilt(session, error)
                    raise
                finally:
                    self._give_back(session, "rw")

    async def stream(
        self, query: Query, deadline: Deadline, form: Form
    ) -> AsyncGenerator[Chunk, None]:
        """Run one statement in a transaction of its own: its rows, committed after the last."""
        with answering(self.engine, translate):
            statement, values = sql(query)
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._calls)
                async with deadline.enforced():
                    session = await stack.enter_async_context(
                        self._session(query.read_only, fence=False)
                    )
                    ready = await _prepare(session, statement, query.max_rows, _EACH_ROW)
                _check_count(ready, values)
                session.dirty = session.dirty or ready.changes_session
                if ready.columns == () and not query.read_only:
                    # Nothing to stream, and some of these (VACUUM) run in no transaction.
                    async with deadline.enforced():
                        await ready.prepared.fetch(*values)
                    yield Chunk(b"", _affected(ready.prepared.get_statusmsg()))
                    return
                chunks = postgresql_stream.chunks(
                    session.connection,
                    ready.prepared,
                    values,
                    deadline,
                    encode=None if ready.as_json else _encoded,
                    read_only=query.read_only,
                )
                async with aclosing(chunks):
                    async for chunk in chunks:
                        yield chunk

    async def transaction(
        self, work: Callable[[Transaction], Awaitable[T]], deadline: Deadline
    ) -> T:
        """Run `work` in one transaction of the rw role; committed when it returns.

        `Transaction.connection` is for the sidecar's own statements: of their parameters and
        columns only text and integers look the same on every connection, so the rest is cast.
        """
        with answering(self.engine, translate):
            async with (
                self._calls,
                deadline.enforced(),
                self._session(False) as session,
            ):
                # Not asyncpg's own transaction: one that is cancelled while it begins stays open
                # in the connection's mind for ever, whatever the server is told afterwards.
                await session.connection.execute("BEGIN")
                result = await work(Transaction(session))
                if await session.connection.execute("COMMIT") != "COMMIT":
                    raise QueryRejected("a statement of the transaction failed; nothing was kept")
                return result

    async def ping(self, deadline: Deadline) -> str:
        """The server's version, as "17.11"."""
        with answering(self.engine, translate):
            async with self._calls, deadline.enforced(), self._session(False) as session:
                await session.connection.execute("SELECT 1")
                version = session.connection.get_server_version()
                return f"{version.major}.{version.minor}"

    def pool(self) -> dict[str, int]:
        return self._pool.counts()

    async def close(self, grace_seconds: float) -> None:
        await self._calls.drained(grace_seconds)
        await self._pool.close(_CLOSE_SECONDS)

    async def _connect(self, kind: str) -> _Session:
        server = self._server
        login = server.ro if kind == "ro" and server.ro else server.rw
        settings = _SESSION | ({"default_transaction_read_only": "on"} if kind == "ro" else {})
        with answering(self.engine, translate_connecting):
            connection = await asyncpg.connect(
                host=server.host,
                port=server.port,
                database=server.database,
                user=login.username,
                password=login.password,
                ssl=self._tls or False,
                timeout=CONNECT_SECONDS,
                server_settings=settings,
            )
        return _Session(connection)

    @asynccontextmanager
    async def _session(self, read_only: bool, *, fence: bool = True) -> AsyncIterator[_Session]:
        """A session of the fitting role; however the body ends, it goes back whole.

        Without a role for reads a transaction is the fence, unless the body brings its own.
        """
        kind = "ro" if read_only and self._server.ro else "rw"
        session = await self._acquire(kind)
        fenced = read_only and kind == "rw"
        session.dirty = fenced
        try:
            if fenced and fence:
                await session.connection.execute("BEGIN READ ONLY")
            yield session
        except BaseException as error:
            self._spoilt(session, error)
            raise
        finally:
            self._give_back(session, kind)

    def _spoilt(self, session: _Session, error: BaseException) -> None:
        """What an error says of the session it came from."""
        if isinstance(error, asyncio.CancelledError):
            session.dirty = True
        elif isinstance(error, Exception) and isinstance(translate(error), ConnectionLost):
            # asyncpg may still call it open; given back, it would fail the next call too.
            session.connection.terminate()
            self._pool.drop_idle()

    async def _acquire(self, kind: str, session: _Session | None = None) -> _Session:
        """A session that is open; `session` was taken and may not be."""
        while True:
            if session is None:
                session = await self._pool.acquire(kind)
            if not session.connection.is_closed():
                return session
            self._pool.discard(session)
            session = None

    def _give_back(self, session: _Session, kind: str) -> None:
        if session.connection.is_closed():
            self._pool.discard(session)
        elif session.dirty or session.connection.is_in_transaction():
            self._pool.background.spawn(self._mend(session, kind))
        else:
            self._pool.release(session, kind)

    async def _mend(self, session: _Session, kind: str) -> None:
        # asyncpg first waits here until the server has answered a cancel that is under way.
        try:
            await session.connection.execute(_RESET, timeout=_MEND_SECONDS)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            session.connection.terminate()
            self._pool.discard(session)
        except asyncio.CancelledError:
            session.connection.terminate()
            self._pool.discard(session)
            raise
        else:
            session.dirty = False
            self._pool.release(session, kind)


def sql(query: Query) -> tuple[str, list[Any]]:
    """The statement and its `$1` parameters; raises InvalidRequest or ParameterMismatch."""
    statement, values = text(query, "SQL"), positional(query)
    if "\0" in statement:
        # It ends a text in the protocol: what follows would be read as something else.
        raise InvalidRequest("the statement holds a NUL character")
    return statement, values


async def _disconnect(session: _Session) -> None:
    try:
        await session.connection.close(timeout=_CLOSE_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        session.connection.terminate()


async def _run(
    session: _Session, statement: str, values: list[Any], max_rows: int | None
) -> Result:
    try:
        return await _run_prepared(session, statement, values, max_rows)
    except asyncpg.InvalidCachedStatementError:
        # Another session changed the tables: nothing ran, and preparing anew heals it.
        session.statements.clear()
        return await _run_prepared(session, statement, values, max_rows)


async def _run_prepared(
    session: _Session, statement: str, values: list[Any], max_rows: int | None
) -> Result:
    ready = session.statements.get((statement, max_rows))
    if ready is None:
        ready = await _prepare_and_keep(session, statement, max_rows)
    else:
        session.statements.move_to_end((statement, max_rows))
    _check_count(ready, values)
    session.dirty = session.dirty or ready.changes_session
    if ready.as_json:
        row = await ready.prepared.fetchrow(*values)
        return _from_json(row, max_rows, ready.columns)
    rows = await ready.prepared.fetch(*values)
    if ready.columns == ():
        return Result(data=[], row_count=_affected(ready.prepared.get_statusmsg()), columns=())
    data = [_plain(row) for row in rows]
    kept = data if max_rows is None else data[:max_rows]
    truncated = len(kept) < len(data)
    return Result(data=kept, row_count=len(kept), truncated=truncated, columns=ready.columns)


def _check_count(ready: _Statement, values: list[Any]) -> None:
    expected = ready.parameters
    if expected is None:
        expected = ready.parameters = len(ready.prepared.get_parameters())
    if expected != len(values):
        raise ParameterMismatch(
            f"the statement takes {expected} parameters, and {len(values)} were given"
        )


def _plain(row: asyncpg.Record) -> dict[str, Any]:
    return {name: codecs.plain(value) for name, value in row.items()}


def _encoded(row: asyncpg.Record) -> str:
    return codecs.JSON.encode(_plain(row)).decode()


async def _prepare_and_keep(session: _Session, statement: str, max_rows: int | None) -> _Statement:
    ready = await _prepare(session, statement, max_rows, _ALL_ROWS)
    session.statements[statement, max_rows] = ready
    if len(session.statements) > _STATEMENTS:
        session.statements.popitem(last=False)
    return ready


async def _prepare(
    session: _Session, statement: str, max_rows: int | None, answer: str
) -> _Statement:
    bare = sqltext.bare(statement)
    word = sqltext.first_word(bare)
    if word in _HELD:
        raise QueryRejected(f"{word} needs a session that is held across calls; there is none")
    changes = bool(_CHANGES_SESSION.search(bare) or _QUOTED_CHANGE.search(statement))
    wrapped = _wrapped(statement, word, max_rows, answer)
    connection = session.connection
    try:
        prepared = await connection.prepare(statement)
    except asyncpg.UnsupportedClientFeatureError:
        # The server took it; only its rows cannot be read here (composites), and JSON can.
        if wrapped is None:
            raise
        return _Statement(await connection.prepare(wrapped), True, changes, None)
    attributes = prepared.get_attributes()
    columns = tuple(attribute.name for attribute in attributes)
    _refuse_duplicates(columns)
    await _teach(session, prepared.get_parameters())
    if columns and wrapped is not None:
        try:
            return _Statement(await connection.prepare(wrapped), True, changes, columns)
        except (asyncpg.FeatureNotSupportedError, asyncpg.PostgresSyntaxError):
            pass  # a WITH that writes, SELECT INTO: these stand on their own only
    await _teach(session, tuple(attribute.type for attribute in attributes))
    return _Statement(await connection.prepare(statement), False, changes, columns)


async def _teach(session: _Session, types: tuple[asyncpg.Type, ...]) -> None:
    names = codecs.untaught(types, session.taught)
    if names:
        await codecs.teach(session.connection, names)
        session.taught |= names


def _wrapped(statement: str, word: str, max_rows: int | None, answer: str) -> str | None:
    """The statement inside one that answers its rows as JSON: what `answer` selects of them."""
    # The line feed ends a comment that the statement may end with.
    inner = statement.rstrip().rstrip(";") + "\n"
    limit = "" if max_rows is None else f" LIMIT {max_rows + 1}"
    select = f"SELECT {answer}"
    if word in _AS_QUERY:
        return f"{select} FROM (SELECT * FROM ({inner}) plan2_query{limit}) {_ROW}"
    if word in _AS_STEP:
        return (
            f"WITH plan2_query AS ({inner}) {select} FROM (SELECT * FROM plan2_query{limit}) {_ROW}"
        )
    return None


def _refuse_duplicates(names: tuple[str, ...]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise QueryRejected(f"several columns are called {', '.join(repeated)}; name them apart")


def _from_json(
    row: asyncpg.Record | None, max_rows: int | None, columns: tuple[str, ...] | None
) -> Result:
    answer, count = (row[0], row[1]) if row else ("[]", 0)
    if max_rows is None or count <= max_rows:
        return Result(data=msgspec.Raw(answer.encode()), row_count=count, columns=columns)
    kept = _ROWS.decode(answer)[:max_rows]
    return Result(data=kept, row_count=max_rows, truncated=True, columns=columns)


def _affected(status: str | None) -> int:
    """The count that ends a status like "UPDATE 3"; 0 where there is none."""
    last = (status or "").rpartition(" ")[2]
    return int(last) if last.isdigit() else 0
