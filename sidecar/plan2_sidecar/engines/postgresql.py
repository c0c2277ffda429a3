"""PostgreSQL over asyncpg: held connections, prepared statements, rows encoded by the server.

A connection is reset only after a statement that may have changed the session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Final, TypeVar

import asyncpg

from plan2_contract.connection import Sql
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines import postgresql_codecs as codecs
from plan2_sidecar.engines import postgresql_internals as internals
from plan2_sidecar.engines import postgresql_statements as statements
from plan2_sidecar.engines import postgresql_stream
from plan2_sidecar.engines.base import (
    CONNECT_SECONDS,
    Calls,
    Cancel,
    Told,
    answering,
    positional,
    text,
    tls_context,
)
from plan2_sidecar.engines.pool import Pool
from plan2_sidecar.engines.postgresql_asking import Asking
from plan2_sidecar.engines.postgresql_errors import translate, translate_connecting
from plan2_sidecar.engines.postgresql_lane import SETTINGS
from plan2_sidecar.engines.postgresql_short import ShortReads
from plan2_sidecar.engines.postgresql_statements import EACH_ROW, Session
from plan2_sidecar.errors import ConnectionLost, DeadlineExceeded, InvalidRequest, QueryRejected
from plan2_sidecar.query import Chunk, Form, Query, Result

T = TypeVar("T")

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
_SETTINGS: Final = {"ro": {"default_transaction_read_only": "on"}, "short": {**SETTINGS}}
_RESET: Final = (
    "ROLLBACK; RESET SESSION AUTHORIZATION; RESET ALL; CLOSE ALL; UNLISTEN *; "
    "SELECT pg_advisory_unlock_all(); DISCARD TEMP"
)


class Transaction:
    """One transaction: its connection for our own statements, `execute` for a caller's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.connection = session.connection

    async def execute(self, query: Query) -> Result:
        """Run a caller's statement in this transaction, as `PostgreSQL.execute` would."""
        statement, values = sql(query)
        return await statements.run(self._session, statement, values, query.max_rows)


class PostgreSQL:
    """One server, two roles: statements that must only read use `ro` where there is one."""

    def __init__(self, engine: Engine, connection: Sql) -> None:
        self.engine = engine
        self._server = connection
        self._tls = tls_context(connection.tls, connection.ca_pem)
        self._pool: Pool[Session] = Pool(self._connect, _disconnect, connection.pool_max)
        self._calls = Calls()
        # Asked before `begin`, by who gives calls their places.
        self.short = ShortReads(self._pool, self._calls, self._in_place_of)
        self._answering = answering(engine, translate)

    async def execute(self, query: Query, deadline: Deadline) -> Result:
        """Run one statement with `$1` parameters; data is a list of row objects."""
        with self._answering:
            statement, values = sql(query)
            with self._calls, deadline.enforced():
                if query.read_only:
                    async with self._session(True) as session:
                        return await statements.run(session, statement, values, query.max_rows)
                taken = self._pool.take("rw")
                if taken is None or taken.connection.is_closed():
                    taken = await self._acquire("rw", taken)
                session = taken
                try:
                    return await statements.run(session, statement, values, query.max_rows)
                except BaseException as error:
                    self._spoilt(session, error)
                    raise
                finally:
                    self._give_back(session, "rw")

    def begin(self, query: Query, deadline: Deadline, told: Told) -> Cancel | None:
        """`execute` without a task, where the statement is prepared on an idle connection."""
        statement, max_rows = query.query, query.max_rows
        seconds = deadline.at - deadline.clock()
        if query.read_only or seconds <= 0 or not isinstance(statement, str):
            return None
        session = self._pool.take("rw")
        if session is None:
            return None
        known = statement, max_rows
        ready = session.statements.get(known)
        values = [] if query.params is None else query.params
        if (
            ready is None
            or not ready.at_once
            or ready.parameters != len(values)
            or not isinstance(values, list)
        ):
            self._give_back(session, "rw")
            return None
        asked = ready.by_row or ready.prepared
        started = time.monotonic()

        def over(outcome: Any) -> None:
            kept = False
            if isinstance(outcome, list):
                if asked is ready.by_row and len(outcome) < 2:
                    seconds = time.monotonic() - started
                    kept = self.short.answered(query, ready, session, seconds)
                outcome = statements.from_json(ready, asked, outcome, max_rows)
            else:
                self._spoilt(session, outcome)
                outcome = self._answering.told(outcome)
            if not kept:
                self._give_back(session, "rw")
            self._calls.leave()
            told(outcome)

        try:
            rows = internals.rows(session.connection, asked, values)
            asking = Asking(rows, seconds, session.loop, over)
        except Exception:  # noqa: BLE001 - nothing was sent: who awaits it is told what is wrong
            self._give_back(session, "rw")
            return None
        session.statements.move_to_end(known)
        self._calls.enter()
        return asking.cancel

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
                    ready = await statements.prepare(session, statement, query.max_rows, EACH_ROW)
                statements.check_count(ready, values)
                session.dirty = session.dirty or ready.changes_session
                if ready.columns == () and not query.read_only:
                    # Nothing to stream, and some of these (VACUUM) run in no transaction.
                    async with deadline.enforced():
                        await ready.prepared.fetch(*values)
                    yield Chunk(b"", statements.affected(ready.prepared.get_statusmsg()))
                    return
                chunks = postgresql_stream.chunks(
                    session.connection,
                    ready.prepared,
                    values,
                    deadline,
                    encode=None if ready.as_json else statements.encoded,
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
        return self.short.counts()

    async def close(self, grace_seconds: float) -> None:
        await self._calls.drained(grace_seconds)
        self.short.close()
        await self._pool.close(_CLOSE_SECONDS)

    async def _connect(self, kind: str) -> Session:
        server = self._server
        login = server.ro if kind == "ro" and server.ro else server.rw
        settings = _SESSION | _SETTINGS.get(kind, {})
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
        await codecs.teach_json(connection)
        return Session(connection, asyncio.get_running_loop())

    async def _in_place_of(self, session: Session) -> Session:
        await _disconnect(session)
        return await self._connect("short")

    @asynccontextmanager
    async def _session(self, read_only: bool, *, fence: bool = True) -> AsyncIterator[Session]:
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

    def _spoilt(self, session: Session, error: BaseException) -> None:
        """What an error says of the session it came from."""
        if isinstance(error, asyncio.CancelledError | DeadlineExceeded):
            session.dirty = True
        elif isinstance(error, Exception) and isinstance(translate(error), ConnectionLost):
            # asyncpg may still call it open; given back, it would fail the next call too.
            session.connection.terminate()
            self._pool.drop_idle()

    async def _acquire(self, kind: str, session: Session | None = None) -> Session:
        """A session that is open; `session` was taken and may not be."""
        while True:
            if session is None:
                if self._pool.is_full:
                    self.short.make_room()
                session = await self._pool.acquire(kind)
            if not session.connection.is_closed():
                return session
            self._pool.discard(session)
            session = None

    def _give_back(self, session: Session, kind: str) -> None:
        if internals.is_at_rest(session.connection) and not session.dirty:
            self._pool.release(session, kind)
        elif session.connection.is_closed():
            self._pool.discard(session)
        else:
            self._pool.background.spawn(self._mend(session, kind))

    async def _mend(self, session: Session, kind: str) -> None:
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


async def _disconnect(session: Session) -> None:
    try:
        await session.connection.close(timeout=_CLOSE_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        session.connection.terminate()
