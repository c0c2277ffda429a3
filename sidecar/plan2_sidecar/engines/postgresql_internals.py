"""What PostgreSQL's modules know of asyncpg's inside: nothing else here reads its privates.

Pinned to the minor version in pyproject.toml; tests/conformance/test_engine_postgresql_at_once.py
holds each of these to what the installed asyncpg does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    # Generic in its stubs alone.
    Connection = asyncpg.Connection[asyncpg.Record]
    Prepared = asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]

Rows = Coroutine[Any, Any, list["asyncpg.Record"]]


def is_at_rest(connection: Connection) -> bool:
    """It is open, and in no transaction."""
    inside: Any = connection
    # One that was aborted has no protocol any more.
    if inside._aborted:
        return False
    protocol = inside._protocol
    answer: bool = protocol.is_connected() and not protocol.is_in_transaction()
    return answer


def rows(connection: Connection, prepared: Prepared, values: Sequence[Any]) -> Rows:
    """`prepared.fetch(*values)` without asyncpg's own layers, a fifth of what the call costs.

    Only for rows of built-in types: the layers are where it learns that a type was altered.
    """
    # Its stubs do not name them.
    inside: Any = connection
    statement: Any = prepared
    asked: Rows = inside._protocol.bind_execute(statement._state, values, "", 0, False, None)
    return asked


def send(rows: Rows) -> asyncio.Future[Any]:
    """Send what `rows` asks; the future is done when `received` may be called.

    Cancelling it cancels on the server. What it raises was raised before anything was sent.
    """
    waiter: asyncio.Future[Any] = rows.send(None)
    return waiter


def received(rows: Rows) -> list[asyncpg.Record]:
    """The rows, once they are there; raises what asyncpg does, or CancelledError."""
    try:
        rows.send(None)
    except StopIteration as done:
        answer: list[asyncpg.Record] = done.value
        return answer
    raise asyncpg.InternalClientError("asyncpg waits for more than one answer")
