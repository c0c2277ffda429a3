"""ClickHouse as the sidecar's own warehouse: tables made on first need, rows as JSON lines.

The tables live in the application's database, whose role may create them. Whoever writes the
rows decides what becomes of those that could not be written.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import QueryRejected
from plan2_sidecar.fleet import Fleet, Member
from plan2_sidecar.query import Query, Result

if TYPE_CHECKING:
    from plan2_sidecar.engines.clickhouse import ClickHouse

_UNKNOWN_TABLE: Final = "60"


@dataclass(frozen=True)
class Table:
    """A name and what follows it in CREATE TABLE."""

    name: str
    definition: str


class Warehouse:
    """The configured ClickHouse."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._made: set[tuple[Member, str]] = set()

    @property
    def configured(self) -> bool:
        """Whether there is one at all."""
        return Engine.CLICKHOUSE in self._fleet.members

    def require(self) -> None:
        """Raise EngineNotConfigured where there is none."""
        self._fleet.member(Engine.CLICKHOUSE)

    async def insert(self, table: Table, rows: bytes, deadline: Deadline, **settings: str) -> None:
        """Insert JSON lines; raises Problem. Where the table is missing it is made."""
        member = self._fleet.member(Engine.CLICKHOUSE)

        async def work(client: "ClickHouse") -> None:
            await client.insert(table.name, rows, deadline, **settings)

        await self._make(member, table, deadline)
        try:
            await member.use(work, deadline)
        except QueryRejected as problem:
            if problem.engine_code != _UNKNOWN_TABLE:
                raise
            # Somebody dropped it.
            self._made.discard((member, table.name))
            await self._make(member, table, deadline)
            await member.use(work, deadline)

    async def select(
        self, statement: str, params: dict[str, Any], limit: int, deadline: Deadline
    ) -> Result:
        """At most `limit` rows; none where the table is missing. Raises Problem."""
        query = Query(query=statement, params=params, read_only=True, max_rows=limit)
        try:
            return await self._fleet.member(Engine.CLICKHOUSE).execute(query, deadline)
        except QueryRejected as problem:
            if problem.engine_code != _UNKNOWN_TABLE:
                raise
            return Result(data=[], row_count=0)

    async def _make(self, member: Member, table: Table, deadline: Deadline) -> None:
        if (member, table.name) in self._made:
            return
        statement = f"CREATE TABLE IF NOT EXISTS {table.name} {table.definition}"
        await member.execute(Query(query=statement), deadline)
        # Members that were replaced are forgotten with what they had.
        self._made = {(member, table.name)} | {made for made in self._made if made[0] is member}
