"""What an engine's tables are, as far as a write to one changes the answers about another.

`plain` tables are changed by statements that name them and by nothing else. `entangled` are the
names behind which there may be more: views, partitions, tables with triggers or cascading
foreign keys, tables that feed materialized views, functions of the user's. Read in the
background, and again when a statement may have changed it; until then nothing is said.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import Problem
from plan2_sidecar.fleet import Fleet, Member
from plan2_sidecar.query import Query

if TYPE_CHECKING:
    from plan2_sidecar.engines.mongodb import Mongo

LOG = logging.getLogger(__name__)

EVERY_SECONDS: Final = 30.0
AGAIN_SECONDS: Final = 5.0
READING_SECONDS: Final = 2.0
MOST_NAMES: Final = 20_000
# A read waits so long for tables that are just being read, lest its answer be kept under two keys.
LONGEST_WAIT_SECONDS: Final = 2.0
SHARE_OF_DEADLINE: Final = 0.5

_STATEMENTS: Final = {
    Engine.POSTGRESQL: f"""
        SELECT lower(c.relname::text) AS name,
            (c.relkind = 'r' AND NOT c.relispartition AND NOT c.relhassubclass
                AND NOT c.relhasrules
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t
                    WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint f
                    WHERE f.confrelid = c.oid AND f.contype = 'f'
                    AND (f.confdeltype IN ('c', 'n', 'd') OR f.confupdtype IN ('c', 'n', 'd'))))
            AS plain
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
            AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
        UNION ALL
        SELECT lower(p.proname::text), false
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
        LIMIT {MOST_NAMES + 1}
    """,
    Engine.CLICKHOUSE: f"""
        SELECT lower(name) AS name, toBool(
            match(engine, 'MergeTree$|^Memory$|Log$') AND empty(dependencies_table)) AS plain
        FROM system.tables
        WHERE lower(database) NOT IN ('system', 'information_schema')
        UNION ALL
        SELECT lower(name), toBool(0) FROM system.functions WHERE origin != 'System'
        LIMIT {MOST_NAMES + 1}
    """,
}


class _Row(msgspec.Struct, frozen=True):
    name: str
    plain: bool


_ROWS: Final = msgspec.json.Decoder(list[_Row], strict=False)


@dataclass(frozen=True, slots=True)
class Tables:
    """Names in small letters, without schema or database."""

    plain: frozenset[str]
    entangled: frozenset[str]


@dataclass(slots=True)
class _Shelf:
    member: Member
    version: object = None
    tables: Tables | None = None
    read_at: float = 0.0
    tried_at: float | None = None
    reading: asyncio.Task[None] | None = None


class TableReader:
    """The engines' tables, each read when it is first asked for."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._shelves: dict[Engine, _Shelf] = {}

    def known(self, engine: Engine, version: object) -> Tables | None:
        """The tables, read since `version` came to be; None while that is not so."""
        member = self._fleet.members.get(engine)
        if member is None or engine not in _READERS:
            return None
        shelf = self._shelves.get(engine)
        if shelf is None or shelf.member is not member:
            shelf = self._shelves[engine] = _Shelf(member)
        now = self._clock()
        current = shelf.tables is not None and shelf.version == version
        if not current or now - shelf.read_at > EVERY_SECONDS:
            self._begin(engine, shelf, version, now)
        return shelf.tables if current and now - shelf.read_at <= 2 * EVERY_SECONDS else None

    async def learnt(self, engine: Engine, version: object, deadline: Deadline) -> Tables | None:
        """As `known`, a moment later where they are just being read."""
        seconds = min(LONGEST_WAIT_SECONDS, deadline.remaining() * SHARE_OF_DEADLINE)
        ends = self._clock() + seconds
        # The reading under way may have begun before `version` came to be: another follows it.
        while (known := self.known(engine, version)) is None:
            shelf = self._shelves.get(engine)
            left = ends - self._clock()
            if shelf is None or shelf.reading is None or shelf.reading.done() or left <= 0:
                break
            await asyncio.wait({shelf.reading}, timeout=left)
        return known

    async def close(self) -> None:
        """End the readings under way."""
        readings = [shelf.reading for shelf in self._shelves.values() if shelf.reading]
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)

    def _begin(self, engine: Engine, shelf: _Shelf, version: object, now: float) -> None:
        if shelf.reading is not None and not shelf.reading.done():
            return
        if shelf.tried_at is not None and now - shelf.tried_at < AGAIN_SECONDS:
            return
        shelf.reading = asyncio.create_task(self._read(engine, shelf, version))

    async def _read(self, engine: Engine, shelf: _Shelf, version: object) -> None:
        began = self._clock()
        deadline = Deadline.after(READING_SECONDS, self._clock)
        try:
            tables = await _READERS[engine](shelf.member, deadline)
        except (Problem, msgspec.MsgspecError) as error:
            LOG.info("%s: its tables could not be read: %s", engine, error)
            shelf.tried_at = began
            return
        shelf.tables, shelf.version, shelf.read_at = tables, version, began
        shelf.tried_at = began if tables is None else None


async def _sql(member: Member, deadline: Deadline) -> Tables | None:
    query = Query(query=_STATEMENTS[member.engine], max_rows=MOST_NAMES + 1)
    result = await member.execute(query, deadline)
    rows = _ROWS.decode(msgspec.json.encode(result.data))
    if len(rows) > MOST_NAMES:
        return None
    entangled = frozenset(row.name for row in rows if not row.plain)
    return Tables(frozenset(row.name for row in rows) - entangled, entangled)


async def _mongodb(member: Member, deadline: Deadline) -> Tables | None:
    async def names(database: Any) -> list[str]:
        found = await database.list_collections()
        return [held["name"].lower() async for held in found if held.get("type") == "view"]

    async def work(client: "Mongo") -> list[str]:
        async with deadline.enforced():
            return await client.database(names)

    return Tables(frozenset(), frozenset(await member.use(work, deadline)))


_READERS: Final = {
    Engine.POSTGRESQL: _sql,
    Engine.CLICKHOUSE: _sql,
    Engine.MONGODB: _mongodb,
}
