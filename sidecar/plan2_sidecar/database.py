"""PostgreSQL as the sidecar's own database: transactions on the schema `plan2`.

The operator migrates the schema. Started by hand, without an operator, the sidecar does it
itself; where it may not, or where the operator is older, a call answers `schema_outdated`.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from plan2_contract import schema
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import ConnectionLost, SchemaOutdated
from plan2_sidecar.fleet import Fleet, Member

if TYPE_CHECKING:
    from plan2_sidecar.engines.postgresql import PostgreSQL, Transaction

T = TypeVar("T")


class Database:
    """The configured PostgreSQL; `migrates` when no operator looks after it."""

    def __init__(self, fleet: Fleet, *, migrates: bool) -> None:
        self._fleet = fleet
        self._migrates = migrates
        self._seen: tuple[Member, int] | None = None

    @property
    def configured(self) -> bool:
        """Whether there is one at all."""
        return Engine.POSTGRESQL in self._fleet.members

    async def run(
        self, work: Callable[["Transaction"], Awaitable[T]], deadline: Deadline, *, needs: int
    ) -> T:
        """Run `work` in one transaction, on a schema of at least version `needs`.

        Raises EngineNotConfigured, SchemaOutdated, or any other Problem of PostgreSQL.
        """
        member = self._fleet.member(Engine.POSTGRESQL)
        await self._ensure(member, needs, deadline)

        async def call(client: "PostgreSQL") -> T:
            return await client.transaction(work, deadline)

        return await member.use(call, deadline)

    async def read(
        self, work: Callable[["Transaction"], Awaitable[T]], deadline: Deadline, *, needs: int
    ) -> T:
        """As `run`, for `work` that only reads: once more when its connection broke.

        A server that restarted breaks every connection it had.
        """
        member = self._fleet.member(Engine.POSTGRESQL)
        member.retries.called()
        try:
            return await self.run(work, deadline, needs=needs)
        except ConnectionLost:
            if not member.retries.spend():
                raise
            return await self.run(work, deadline, needs=needs)

    async def _ensure(self, member: Member, needs: int, deadline: Deadline) -> None:
        if self._seen is None or self._seen[0] is not member or self._seen[1] < needs:

            async def look(client: "PostgreSQL") -> int:
                return await client.transaction(self._look, deadline)

            self._seen = member, await member.use(look, deadline)
        version = self._seen[1]
        if version < needs:
            raise SchemaOutdated(
                f"the schema plan2 is at version {version} and this call needs {needs}; "
                "an operator of this release brings it there",
                database=Engine.POSTGRESQL,
            )

    async def _look(self, transaction: "Transaction") -> int:
        connection = transaction.connection
        version: int = await _version(connection)
        if version >= schema.NEWEST or not self._migrates:
            return version
        may: bool = await connection.fetchval(
            "SELECT has_database_privilege(current_database(), 'CREATE')"
        )
        if not may:
            return version
        await connection.execute(f"SELECT pg_advisory_xact_lock({schema.LOCK})")
        for statement in schema.VERSION_TABLE:
            await connection.execute(statement)
        for number, statements in schema.pending(await _version(connection)):
            for statement in statements:
                await connection.execute(statement)
            await connection.execute(f"INSERT INTO plan2.schema_version VALUES ({number})")
        return schema.NEWEST


async def _version(connection: Any) -> int:
    """The schema's version as far as this role may see it; 0 for none."""
    # Asked one by one: a name in a schema that is closed to this role is an error, not NULL.
    for visible in (
        "SELECT has_schema_privilege(to_regnamespace('plan2')::oid, 'USAGE')",
        "SELECT has_table_privilege(to_regclass('plan2.schema_version')::oid, 'SELECT')",
    ):
        if not await connection.fetchval(visible):
            return 0
    version: int = await connection.fetchval(
        "SELECT coalesce(max(version), 0)::int FROM plan2.schema_version"
    )
    return version
