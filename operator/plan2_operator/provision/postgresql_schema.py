"""The schema `plan2` in the application's database: migrations, rights, the bootstrap journal.

The tables are `plan2_contract.schema`'s. They are made as the administrator, who owns the
schema; the caller holds the lock that keeps others out.
"""

from typing import TYPE_CHECKING

from plan2_contract import schema
from plan2_operator.engines.access import APP_USER

if TYPE_CHECKING:
    import asyncpg


async def migrate(connection: "asyncpg.Connection") -> None:
    """Bring the schema to the newest version; all of it or nothing."""
    async with connection.transaction():
        if await connection.fetchval("SELECT to_regclass('plan2.schema_version') IS NULL"):
            for statement in schema.VERSION_TABLE:
                await connection.execute(statement)
        version = await connection.fetchval("SELECT max(version) FROM plan2.schema_version") or 0
        for number, statements in schema.pending(version):
            for statement in statements:
                await connection.execute(statement)
            await connection.execute(
                "INSERT INTO plan2.schema_version (version) VALUES ($1)", number
            )
        if version < schema.NEWEST:
            for statement in schema.grants(APP_USER):
                await connection.execute(statement)


async def applied_statements(connection: "asyncpg.Connection") -> dict[int, str]:
    """The bootstrap journal: a statement's index to its fingerprint."""
    rows = await connection.fetch("SELECT position, fingerprint FROM plan2.bootstrap")
    return {row["position"]: row["fingerprint"] for row in rows}


async def record_statement(
    connection: "asyncpg.Connection", position: int, fingerprint: str
) -> None:
    """Note that a bootstrap statement has run."""
    await connection.execute(
        "INSERT INTO plan2.bootstrap (position, fingerprint) VALUES ($1, $2) "
        "ON CONFLICT (position) DO UPDATE SET fingerprint = $2, applied_at = now()",
        position,
        fingerprint,
    )
