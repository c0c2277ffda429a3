"""The tables the SQL engines have, read in the background: on first need, then every 30 s.

A definition that passes through this sidecar makes what is known of its engine doubtful until
it has been read again. No request waits for an engine that does not answer: what is not known
is said to be so, and `routing` goes on without it.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from types import MappingProxyType
from typing import Final

import msgspec

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import Problem
from plan2_sidecar.fleet import Fleet, Member
from plan2_sidecar.query import Query, Result
from plan2_sidecar.routing import SQL_ENGINES, Catalog, Tables

LOG = logging.getLogger(__name__)

EVERY_SECONDS: Final = 30.0
AGAIN_SECONDS: Final = 5.0
READING_SECONDS: Final = 2.0
JITTER: Final = 0.2
# An engine with more is known in part: what is found there is there, and no more is said.
MOST_TABLES: Final = 10_000

# `here`: whether the name is found without its schema or database.
STATEMENTS: Final = {
    Engine.POSTGRESQL: (
        "SELECT n.nspname::text AS place, c.relname::text AS name,"
        " pg_catalog.pg_table_is_visible(c.oid) AS here"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT LIKE 'pg\\_t%'"
        f" LIMIT {MOST_TABLES + 1}"
    ),
    Engine.CLICKHOUSE: (
        "SELECT database AS place, name, database = currentDatabase() AS here"
        f" FROM system.tables WHERE NOT is_temporary LIMIT {MOST_TABLES + 1}"
    ),
}


class _Row(msgspec.Struct, frozen=True):
    place: str
    name: str
    here: bool


_ROWS: Final = msgspec.json.Decoder(list[_Row], strict=False)


class _Shelf:
    """What is known of one member's tables, and the reading under way."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.tables: Tables | None = None
        self.definitions = member.definitions
        self.due_at = 0.0
        self.failing = False
        self.reading: asyncio.Task[None] | None = None

    @property
    def doubtful(self) -> bool:
        """A definition has passed since it was read."""
        return self.tables is not None and self.definitions != self.member.definitions

    @property
    def is_reading(self) -> bool:
        return self.reading is not None and not self.reading.done()


class CatalogReader:
    """Keeps a `Catalog` of the configured SQL engines; a part of the sidecar."""

    def __init__(
        self, fleet: Fleet, clock: Clock, chance: Callable[[], float] = random.random
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._chance = chance
        self._shelves: dict[Engine, _Shelf] = {}
        self._snapshot = Catalog()
        self._wanted = False

    def snapshot(self) -> Catalog:
        """What is known now: the same object for as long as nothing changes."""
        tables = {
            engine: self._known(engine) for engine in SQL_ENGINES if engine in self._fleet.members
        }
        if tables != self._snapshot.tables:
            self._snapshot = Catalog(MappingProxyType(tables))
        return self._snapshot

    def need(self) -> None:
        """Somebody asks for tables: begin to read what is not known or no longer certain."""
        self._wanted = True
        for engine in SQL_ENGINES:
            member = self._fleet.members.get(engine)
            if member is not None:
                self._begin(engine, member)

    async def settled(self, deadline: Deadline) -> bool:
        """Wait for the readings under way, but for those of an engine that did not answer last
        time; False when there was none, or no time, to wait for.
        """
        readings = [
            shelf.reading
            for shelf in self._shelves.values()
            if shelf.reading is not None and shelf.is_reading and not shelf.failing
        ]
        seconds = deadline.at - deadline.clock()
        if not readings or seconds <= 0:
            return False
        await asyncio.wait(readings, timeout=seconds)
        return True

    async def look(self) -> None:
        """Read again what is due; nothing before the first need."""
        if self._wanted:
            self.need()

    async def close(self) -> None:
        """End the readings under way."""
        readings = [shelf.reading for shelf in self._shelves.values() if shelf.reading is not None]
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)

    def _known(self, engine: Engine) -> Tables | None:
        shelf = self._shelves.get(engine)
        if shelf is None or shelf.member is not self._fleet.members[engine]:
            return None
        if shelf.tables is not None and shelf.doubtful and shelf.tables.complete:
            return Tables(shelf.tables.names, complete=False)
        return shelf.tables

    def _begin(self, engine: Engine, member: Member) -> None:
        shelf = self._shelves.get(engine)
        if shelf is None or shelf.member is not member:
            if shelf is not None and shelf.reading is not None:
                shelf.reading.cancel()
            shelf = self._shelves[engine] = _Shelf(member)
        due = self._clock() >= shelf.due_at or (shelf.doubtful and not shelf.failing)
        if due and not shelf.is_reading:
            shelf.reading = asyncio.create_task(self._read(engine, shelf))

    async def _read(self, engine: Engine, shelf: _Shelf) -> None:
        definitions = shelf.member.definitions
        deadline = Deadline.after(READING_SECONDS, self._clock)
        query = Query(query=STATEMENTS[engine], max_rows=MOST_TABLES + 1)
        try:
            read = tables(await shelf.member.execute(query, deadline))
        except (Problem, msgspec.MsgspecError) as error:
            if not shelf.failing:
                LOG.info("%s: its tables could not be read: %s", engine, error)
            shelf.failing = True
            shelf.due_at = self._clock() + AGAIN_SECONDS
            return
        shelf.failing = False
        shelf.definitions = definitions
        shelf.due_at = self._clock() + EVERY_SECONDS * (1 + JITTER * self._chance())
        if read != shelf.tables:
            shelf.tables = read


def tables(result: Result) -> Tables:
    """The rows of one of STATEMENTS as names; raises msgspec.MsgspecError."""
    rows = _ROWS.decode(msgspec.json.encode(result.data))
    kept = rows[:MOST_TABLES]
    names: set[tuple[str, ...]] = {(row.place, row.name) for row in kept}
    names.update((row.name,) for row in kept if row.here)
    return Tables(frozenset(names), complete=len(rows) <= MOST_TABLES)
