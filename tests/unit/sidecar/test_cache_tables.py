"""The tables of an engine, as those who wait for a reading of them learn them."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from fixtures.fix_memory_engine import MemoryEngine, MemoryEngines
from plan2_contract.connection import Document, Engines, Login, Sql
from plan2_contract.engines import Engine
from plan2_sidecar.cache.tables import TableReader, Tables
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.base import EngineClient
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.query import Query, Result

PG = Engine.POSTGRESQL
HOST = Sql(host="h", port=1, database="d", rw=Login(username="u", password="p"))


class Once:
    """A source of one document."""

    def poll(self) -> Document | None:
        return Document(version=1, engines=Engines(postgresql=HOST))


class Reading(MemoryEngine):
    """Has one table more for each reading; each waits until the test lets it end."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        super().__init__(PG, MemoryEngines())
        self.tables: list[str] = []
        self._turns = turns

    async def execute(self, query: Query, deadline: Deadline) -> Result:
        self.tables.append(f"t{len(self.tables)}")
        rows = [{"name": name, "plain": True} for name in self.tables]
        await self._turns.acquire()
        return Result(data=rows, row_count=len(rows))


@pytest.fixture
def turns() -> asyncio.Semaphore:
    return asyncio.Semaphore(0)


@pytest.fixture
def tables(turns: asyncio.Semaphore) -> TableReader:
    async def opener(engine: Engine, connection: Any) -> EngineClient:
        return Reading(turns)

    fleet = Fleet(Once(), opener=opener)
    fleet.refresh()
    return TableReader(fleet, time.monotonic)


def learning(tables: TableReader, version: object) -> Awaitable[Tables | None]:
    return asyncio.ensure_future(tables.learnt(PG, version, Deadline.after(2)))


async def given(turns: asyncio.Semaphore, count: int = 1) -> None:
    """So many readings end."""
    for _ in range(count):
        await asyncio.sleep(0.01)
        turns.release()


async def test_who_waits_for_a_reading_gets_what_it_found(
    tables: TableReader, turns: asyncio.Semaphore
) -> None:
    learnt = learning(tables, "first")
    await given(turns)

    assert await learnt == Tables(frozenset({"t0"}), frozenset())
    assert tables.known(PG, "first") == await learnt
    await tables.close()


async def test_a_reading_that_began_before_the_version_is_followed_by_one_that_did_not(
    tables: TableReader, turns: asyncio.Semaphore
) -> None:
    assert tables.known(PG, "first") is None
    await asyncio.sleep(0.01)

    learnt = learning(tables, "second")
    await given(turns, 2)

    assert await learnt == Tables(frozenset({"t0", "t1"}), frozenset())
    await tables.close()


@pytest.mark.parametrize("readings", [0, 1])
async def test_nobody_waits_for_a_reading_longer_than_half_its_time(
    tables: TableReader, turns: asyncio.Semaphore, readings: int
) -> None:
    tables.known(PG, "first")
    await given(turns, readings)

    deadline = Deadline.after(1)
    assert await tables.learnt(PG, "second", deadline) is None
    assert 0 < deadline.remaining() <= 0.51
    await tables.close()
