"""The registry in PostgreSQL: what was heard while the store was away, until its time is over.

A member that was dropped meanwhile has a row without a body, so that nobody takes an older word
for the newest.
"""

from typing import TYPE_CHECKING, Final

from plan2_contract import schema
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.registry.members import Member

if TYPE_CHECKING:
    from plan2_sidecar.engines.postgresql import Transaction

# As long as anybody may remember a member that was dropped.
DROPPED_MS: Final = 600_000

_NOTE: Final = """
    INSERT INTO plan2.registration (group_name, member, body, ttl_ms, expires_at)
    VALUES ($1, $2, $3::text, $4::text::bigint, now() + $4::text::bigint * interval '1 ms')
    ON CONFLICT (group_name, member) DO UPDATE
    SET body = EXCLUDED.body, ttl_ms = EXCLUDED.ttl_ms, expires_at = EXCLUDED.expires_at
"""
_FORGET: Final = "DELETE FROM plan2.registration WHERE group_name = $1 AND member = $2"
_READ: Final = """
    SELECT member, body, ttl_ms,
        (extract(epoch FROM expires_at - now()) * 1000)::bigint AS left_ms
    FROM plan2.registration WHERE group_name = $1 AND expires_at > now()
"""
_LONGEST: Final = """
    SELECT (extract(epoch FROM max(expires_at) - now()) * 1000)::bigint
    FROM plan2.registration WHERE expires_at > now()
"""
_PURGE: Final = "DELETE FROM plan2.registration WHERE expires_at < now()"


class Noted:
    """The groups in PostgreSQL; every method raises Problem."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def configured(self) -> bool:
        """Whether there is a PostgreSQL at all."""
        return self._database.configured

    async def beat(
        self, group: str, member: str, body: bytes, ttl_ms: int, deadline: Deadline
    ) -> None:
        """`member` is alive, for `ttl_ms` from now."""
        await self._run(_NOTE, (group, member, body.decode(), str(ttl_ms)), deadline)

    async def drop(self, group: str, member: str, deadline: Deadline) -> None:
        """`member` is gone, and was known elsewhere."""
        await self._run(_NOTE, (group, member, None, str(DROPPED_MS)), deadline)

    async def forget(self, group: str, member: str, deadline: Deadline) -> None:
        """Nothing is to be said of `member` here."""
        await self._run(_FORGET, (group, member), deadline)

    async def members(self, group: str, deadline: Deadline) -> list[Member]:
        """What was noted of a group, those who were dropped among it."""

        async def work(transaction: "Transaction") -> list[Member]:
            rows = await transaction.connection.fetch(_READ, group)
            return [
                Member(
                    row["member"],
                    None if row["body"] is None else row["body"].encode(),
                    row["left_ms"],
                    row["ttl_ms"],
                )
                for row in rows
            ]

        return await self._database.read(work, deadline, needs=schema.CONFIGURATION)

    async def longest_ms(self, deadline: Deadline) -> int | None:
        """For how long there will be notes, of any group; None where there are none."""

        async def work(transaction: "Transaction") -> int | None:
            left_ms: int | None = await transaction.connection.fetchval(_LONGEST)
            return left_ms

        return await self._database.read(work, deadline, needs=schema.CONFIGURATION)

    async def purge(self, deadline: Deadline) -> None:
        """Delete what is over."""
        await self._run(_PURGE, (), deadline)

    async def _run(
        self, statement: str, values: tuple[str | None, ...], deadline: Deadline
    ) -> None:
        async def work(transaction: "Transaction") -> None:
            await transaction.connection.execute(statement, *values)

        await self._database.run(work, deadline, needs=schema.CONFIGURATION)
