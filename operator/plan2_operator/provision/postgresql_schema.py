"""The operator's own schema `plan2` in the application's database, and its migrations.

Migrations only add, so that an older operator finds what it knows in a newer schema. They run
as the administrator, who owns the schema; the caller holds the lock that keeps others out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from plan2_operator.engines.access import APP_USER

if TYPE_CHECKING:
    import asyncpg

# Index + 1 is the version. A released migration is never edited.
MIGRATIONS: Final[Sequence[Sequence[str]]] = (
    (
        f"GRANT USAGE ON SCHEMA plan2 TO {APP_USER}",
        """
        CREATE TABLE plan2.bootstrap (
            position integer PRIMARY KEY,
            fingerprint text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now()
        )
        """,
    ),
)

_VERSION_TABLE: Final = """
    CREATE SCHEMA IF NOT EXISTS plan2;
    CREATE TABLE plan2.schema_version (
        version integer PRIMARY KEY,
        applied_at timestamptz NOT NULL DEFAULT now()
    );
"""


async def migrate(connection: "asyncpg.Connection") -> None:
    """Bring the schema to the newest version; all of it or nothing."""
    async with connection.transaction():
        if await connection.fetchval("SELECT to_regclass('plan2.schema_version') IS NULL"):
            await connection.execute(_VERSION_TABLE)
        version = await connection.fetchval("SELECT max(version) FROM plan2.schema_version") or 0
        for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in statements:
                await connection.execute(statement)
            await connection.execute(
                "INSERT INTO plan2.schema_version (version) VALUES ($1)", number
            )


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
