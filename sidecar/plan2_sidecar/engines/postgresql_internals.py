"""What PostgreSQL's modules know of asyncpg's inside: nothing else here reads its privates.

Pinned to the minor version in pyproject.toml; tests/conformance/test_engine_postgresql_at_once.py
holds each of these to what the installed asyncpg does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg

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


def take_over(connection: Connection, protocol: asyncio.Protocol) -> asyncio.Transport:
    """Speak with its server oneself from now on, on a connection that is at rest.

    asyncpg made it, logged in and set up TLS. All it is good for now is `terminate`.
    """
    inside: Any = connection
    transport: asyncio.Transport = inside._transport
    transport.set_protocol(protocol)
    return transport


def rows(connection: Connection, prepared: Prepared, values: Sequence[Any]) -> Rows:
    """`prepared.fetch(*values)` without asyncpg's own layers, a fifth of what the call costs.

    Only for rows of built-in types: the layers are where it learns that a type was altered. What
    the first `send(None)` raises was raised before anything was sent. It gives the future that is
    done when the second may be called; to cancel that future is to cancel on the server.
    """
    # Its stubs do not name them.
    inside: Any = connection
    statement: Any = prepared
    asked: Rows = inside._protocol.bind_execute(statement._state, values, "", 0, False, None)
    return asked
