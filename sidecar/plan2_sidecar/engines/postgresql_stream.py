"""Rows of a prepared statement as they come: a portal on the server, read piece by piece.

Nothing is asked of the server before the caller wants the next piece, so a caller that reads
slowly makes the server wait and not the memory grow. A piece is sized by the bytes of the rows
before it. Whoever stops half-way has the transaction rolled back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from plan2_sidecar.deadline import Deadline
from plan2_sidecar.query import Chunk

_FIRST_ROWS: Final = 50
_MOST_ROWS: Final = 5000
_PIECE_CHARACTERS: Final = 200_000
_UNDO_SECONDS: Final = 2.0

if TYPE_CHECKING:
    # Generic in its stubs alone.
    Connection = asyncpg.Connection[asyncpg.Record]
    Prepared = asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]


async def chunks(
    connection: Connection,
    prepared: Prepared,
    values: list[Any],
    deadline: Deadline,
    *,
    encode: Callable[[asyncpg.Record], str] | None,
    read_only: bool,
) -> AsyncGenerator[Chunk, None]:
    """The rows as NDJSON; without `encode` their one column is JSON text already."""
    async with _transaction(connection, deadline, read_only=read_only):
        async with deadline.enforced():
            cursor = await prepared.cursor(*values)
        size = _FIRST_ROWS
        while True:
            async with deadline.enforced():
                rows = await cursor.fetch(size)
            if not rows:
                return
            text = _lines(rows, encode)
            yield Chunk(text.encode(), len(rows))
            if len(rows) < size:
                return
            size = _next_size(size, len(text))


def _lines(rows: list[asyncpg.Record], encode: Callable[[asyncpg.Record], str] | None) -> str:
    texts = [row[0] for row in rows] if encode is None else [encode(row) for row in rows]
    text = "\n".join(texts) + "\n"
    if text.count("\n") > len(texts):
        # A column of type json keeps the line feeds it was written with, between its values.
        texts = [each.replace("\n", " ") for each in texts]
        text = "\n".join(texts) + "\n"
    return text


def _next_size(size: int, characters: int) -> int:
    """As many rows as fill a piece, were they like the last; never many more than then."""
    fitting = size * _PIECE_CHARACTERS // max(characters, 1)
    return max(1, min(fitting, size * 4, _MOST_ROWS))


@asynccontextmanager
async def _transaction(
    connection: Connection, deadline: Deadline, *, read_only: bool
) -> AsyncIterator[None]:
    transaction = connection.transaction(readonly=read_only)
    try:
        async with deadline.enforced():
            await transaction.start()
    except BaseException:
        # asyncpg goes on thinking that it is in one.
        connection.terminate()
        raise
    try:
        yield
        async with deadline.enforced():
            await transaction.commit()
    except BaseException:
        await _undo(connection, transaction)
        raise


async def _undo(connection: Connection, transaction: Any) -> None:
    """Roll back; a connection that cannot is not fit for another call."""
    if connection.is_closed() or not connection.is_in_transaction():
        return
    try:
        async with asyncio.timeout(_UNDO_SECONDS):
            await transaction.rollback()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        connection.terminate()
    except (OSError, TimeoutError):
        connection.terminate()
    except asyncio.CancelledError:
        connection.terminate()
        raise
