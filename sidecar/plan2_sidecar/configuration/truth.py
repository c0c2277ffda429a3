"""Configuration in PostgreSQL: the value, its version, and its history, in one transaction.

A deleted key keeps its row, with no value, so that its version goes on counting. Versions are
thereby never given twice, which is what caches and If-Match rely on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plan2_sidecar.engines.postgresql import Transaction


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must hold for a write: one of these versions, or that there is a value, or none."""

    versions: frozenset[int] | None = None
    exists: bool | None = None

    def holds(self, version: int, exists: bool) -> bool:
        """Whether a write may go ahead on what is there."""
        if self.exists is not None and self.exists != exists:
            return False
        return self.versions is None or (exists and version in self.versions)


@dataclass(frozen=True, slots=True)
class Stored:
    """A key's row: JSON text, None when deleted."""

    value: str | None
    version: int


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The precondition did not hold."""

    version: int
    exists: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the history: values as JSON text, None for none; `at` as RFC 3339 in UTC."""

    id: int
    version: int | None
    old_value: str | None
    new_value: str | None
    actor: str
    at: str


ANYTHING = Precondition()
NOTHING = Stored(None, 0)

_AT = """to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at"""
_READ = "SELECT value::text AS value, version FROM plan2.config WHERE user_id = $1 AND key = $2"
_CREATE = """
    INSERT INTO plan2.config (user_id, key, value, version) VALUES ($1, $2, NULL, 0)
    ON CONFLICT DO NOTHING
"""
_WRITE = """
    UPDATE plan2.config SET value = $3::text::json, version = version + 1, updated_at = now()
    WHERE user_id = $1 AND key = $2 RETURNING version
"""
_LOG = """
    INSERT INTO plan2.config_change (user_id, key, version, old_value, new_value, actor)
    VALUES ($1, $2, $3, $4::text::json, $5::text::json, $6)
"""
_HISTORY = f"""
    SELECT id, version, old_value::text AS old_value, new_value::text AS new_value, actor, {_AT}
    FROM plan2.config_change WHERE user_id = $1 AND key = $2 AND id < $3
    ORDER BY id DESC LIMIT $4
"""


async def read(transaction: "Transaction", user: str, key: str) -> Stored:
    """The row, or NOTHING."""
    return _stored(await transaction.connection.fetchrow(_READ, user, key))


async def write(
    transaction: "Transaction",
    user: str,
    key: str,
    value: str | None,
    wanted: Precondition,
    actor: str,
) -> Stored | Mismatch | None:
    """The new row; None when there was nothing to delete."""
    connection = transaction.connection
    row = await connection.fetchrow(f"{_READ} FOR UPDATE", user, key)
    before = _stored(row)
    if not wanted.holds(before.version, before.value is not None):
        return Mismatch(before.version, before.value is not None)
    if value is None and before.value is None:
        return None
    if row is None:
        await connection.execute(_CREATE, user, key)
        # Of two who create at once the second waits above, and meets the first one's value here.
        before = _stored(await connection.fetchrow(f"{_READ} FOR UPDATE", user, key))
        if not wanted.holds(before.version, before.value is not None):
            return Mismatch(before.version, before.value is not None)
    version: int = await connection.fetchval(_WRITE, user, key, value)
    await connection.execute(_LOG, user, key, version, before.value, value, actor)
    return Stored(value, version)


async def log(
    transaction: "Transaction", user: str, key: str, old: str | None, new: str | None, actor: str
) -> None:
    """A line in the history that changes no value and has no version."""
    await transaction.connection.execute(_LOG, user, key, None, old, new, actor)


async def history(
    transaction: "Transaction", user: str, key: str, before: int, limit: int
) -> Sequence[Change]:
    """At most `limit` changes with ids below `before`, newest first."""
    rows: list[Any] = await transaction.connection.fetch(_HISTORY, user, key, before, limit)
    return [Change(**dict(row.items())) for row in rows]


def _stored(row: Any) -> Stored:
    return NOTHING if row is None else Stored(row["value"], row["version"])
