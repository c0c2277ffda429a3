"""Statements on one connection: prepared once, wrapped so that the server encodes their rows.

What cannot be wrapped (EXPLAIN, SHOW, CALL) is fetched and encoded here in the same form.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec

from plan2_sidecar.engines import postgresql_codecs as codecs
from plan2_sidecar.engines import postgresql_internals as internals
from plan2_sidecar.engines import sqltext
from plan2_sidecar.errors import ParameterMismatch, QueryRejected
from plan2_sidecar.query import Result

_STATEMENTS: Final = 100
_ROW: Final = "plan2_row"
_ALL_ROWS: Final = f"json_agg({_ROW}.*), count(*)"
_BY_ROW: Final = f"row_to_json({_ROW}.*)"
# So many answers in a row of one row or none make it likely that the next ones are like them.
_LIKELY: Final = 8
EACH_ROW: Final = f"row_to_json({_ROW}.*)::text"
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
_NO_ROWS: Final = msgspec.Raw(b"[]")
# As json_agg puts it between rows.
_BETWEEN: Final = b", \n "
_ROWS: Final = msgspec.json.Decoder(list[msgspec.Raw])

if TYPE_CHECKING:
    # Generic in its stubs alone.
    Connection = asyncpg.Connection[asyncpg.Record]
    Prepared = asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]


@dataclass(slots=True)
class Statement:
    """`as_json`: its rows are JSON text, or one row with all of them and their count.

    `columns` of the rows are None where the server alone can read them. `parameters`, how many
    there are, is None until somebody asks. `by_row` answers JSON a row each, which is less work
    for the server where there is one: `single` counts the answers without more, until it is due.
    `at_once` where nothing but the statement itself has to be sent, before or afterwards.
    """

    prepared: Prepared
    as_json: bool
    changes_session: bool
    columns: tuple[str, ...] | None
    parameters: int | None = None
    by_row: Prepared | None = None
    single: int = 0
    due: bool = False
    at_once: bool = False

    def __post_init__(self) -> None:
        self.at_once = self.as_json and not self.changes_session


@dataclass(slots=True)
class Session:
    """A connection with what has been prepared on it and the codecs it was taught."""

    connection: Connection
    loop: asyncio.AbstractEventLoop
    statements: OrderedDict[tuple[str, int | None], Statement] = field(default_factory=OrderedDict)
    taught: set[str] = field(default_factory=set)
    dirty: bool = False


async def run(session: Session, statement: str, values: list[Any], max_rows: int | None) -> Result:
    try:
        return await _run_prepared(session, statement, values, max_rows)
    except asyncpg.InvalidCachedStatementError:
        # Another session changed the tables: nothing ran, and preparing anew heals it.
        session.statements.clear()
        return await _run_prepared(session, statement, values, max_rows)


async def _run_prepared(
    session: Session, statement: str, values: list[Any], max_rows: int | None
) -> Result:
    ready = session.statements.get((statement, max_rows))
    if ready is None:
        ready = await _prepare_and_keep(session, statement, max_rows)
    else:
        session.statements.move_to_end((statement, max_rows))
    check_count(ready, values)
    session.dirty = session.dirty or ready.changes_session
    if ready.as_json:
        if ready.due and not session.connection.is_in_transaction():
            await _prepare_by_row(session, ready, statement, max_rows)
        asked = ready.by_row or ready.prepared
        answer = await internals.rows(session.connection, asked, values)
        return from_json(ready, asked, answer, max_rows)
    rows = await ready.prepared.fetch(*values)
    if ready.columns == ():
        return Result(data=[], row_count=affected(ready.prepared.get_statusmsg()), columns=())
    data = [_plain(row) for row in rows]
    kept = data if max_rows is None else data[:max_rows]
    truncated = len(kept) < len(data)
    return Result(data=kept, row_count=len(kept), truncated=truncated, columns=ready.columns)


def check_count(ready: Statement, values: list[Any]) -> None:
    expected = ready.parameters
    if expected is None:
        expected = ready.parameters = len(ready.prepared.get_parameters())
    if expected != len(values):
        raise ParameterMismatch(
            f"the statement takes {expected} parameters, and {len(values)} were given"
        )


def _plain(row: asyncpg.Record) -> dict[str, Any]:
    return {name: codecs.plain(value) for name, value in row.items()}


def encoded(row: asyncpg.Record) -> str:
    return codecs.JSON.encode(_plain(row)).decode()


async def _prepare_and_keep(session: Session, statement: str, max_rows: int | None) -> Statement:
    ready = await prepare(session, statement, max_rows, _ALL_ROWS)
    session.statements[statement, max_rows] = ready
    if len(session.statements) > _STATEMENTS:
        session.statements.popitem(last=False)
    return ready


async def _prepare_by_row(
    session: Session, ready: Statement, statement: str, max_rows: int | None
) -> None:
    ready.due = False
    ready.at_once = not ready.changes_session
    wrapped = _wrapped(statement, sqltext.first_word(sqltext.bare(statement)), max_rows, _BY_ROW)
    assert wrapped is not None, "its rows come as JSON"
    ready.by_row = await session.connection.prepare(wrapped)


async def prepare(session: Session, statement: str, max_rows: int | None, answer: str) -> Statement:
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
        return Statement(await connection.prepare(wrapped), True, changes, None)
    attributes = prepared.get_attributes()
    columns = tuple(attribute.name for attribute in attributes)
    _refuse_duplicates(columns)
    await _teach(session, prepared.get_parameters())
    if columns and wrapped is not None:
        try:
            return Statement(await connection.prepare(wrapped), True, changes, columns)
        except (asyncpg.FeatureNotSupportedError, asyncpg.PostgresSyntaxError):
            pass  # a WITH that writes, SELECT INTO: these stand on their own only
    await _teach(session, tuple(attribute.type for attribute in attributes))
    return Statement(await connection.prepare(statement), False, changes, columns)


async def _teach(session: Session, types: tuple[asyncpg.Type, ...]) -> None:
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


def from_json(
    ready: Statement, asked: Prepared, rows: list[asyncpg.Record], max_rows: int | None
) -> Result:
    """What `asked`, one of the two that `ready` has, answered; the next may be the other."""
    if asked is ready.by_row:
        if len(rows) > 1:
            # It was not to be expected, and will not be again.
            ready.by_row, ready.single = None, _LIKELY
        return by_row([row[0] for row in rows], max_rows, ready.columns)
    answer, count = rows[0]
    if count > 1:
        ready.single = 0
    elif ready.by_row is None:
        ready.single += 1
        if ready.single == _LIKELY:
            ready.due, ready.at_once = True, False
    if answer is None:
        answer = _NO_ROWS
    if max_rows is None or count <= max_rows:
        return Result(data=answer, row_count=count, columns=ready.columns)
    kept = _ROWS.decode(answer)[:max_rows]
    return Result(data=kept, row_count=max_rows, truncated=True, columns=ready.columns)


def by_row(
    rows: Sequence[bytes | msgspec.Raw], max_rows: int | None, columns: tuple[str, ...] | None
) -> Result:
    """Rows that came as JSON one by one."""
    if len(rows) == 1:
        return Result(data=msgspec.Raw(b"[%b]" % rows[0]), row_count=1, columns=columns)
    if not rows:
        return Result(data=_NO_ROWS, row_count=0, columns=columns)
    if max_rows is not None and len(rows) > max_rows:
        kept = [msgspec.Raw(bytes(row)) for row in rows[:max_rows]]
        return Result(data=kept, row_count=max_rows, truncated=True, columns=columns)
    data = msgspec.Raw(b"[%b]" % _BETWEEN.join(rows))
    return Result(data=data, row_count=len(rows), columns=columns)


def affected(status: str | None) -> int:
    """The count that ends a status like "UPDATE 3"; 0 where there is none."""
    last = (status or "").rpartition(" ")[2]
    return int(last) if last.isdigit() else 0
