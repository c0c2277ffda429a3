"""Three sidecars write and read while the store comes, goes, is cut off and forgets.

Each key has one writer, which counts up. Nobody may read what is older than the newest write
that was acknowledged more than a moment before the read began; the writer not even that.
"""

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator

import pytest

from fixtures.cache_lab import Caches, Wire, fresh_database, key_value, open_caches, sql
from fixtures.fix_engines import EngineServer, make_redis, run
from plan2_contract.connection import Engines
from plan2_sidecar.cache.keys import Key, Kind
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import Problem

SECONDS = 8.0
# The promise is 1 s; two busy cores get five times that.
MOMENT_SECONDS = 5.0
SIDECARS = 3
KEYS_EACH = 40


class Ledger:
    """What was acknowledged when, by key: (moment, number); None as a number is a deletion."""

    def __init__(self) -> None:
        self.written: dict[str, list[tuple[float, int]]] = {}
        self.reads = 0
        self.answered = 0

    def acknowledged(self, name: str, number: int) -> None:
        self.written.setdefault(name, []).append((time.monotonic(), number))

    def least(self, name: str, before: float) -> int:
        """The newest number acknowledged before that moment."""
        numbers = [number for at, number in self.written.get(name, []) if at < before]
        return max(numbers, default=0)


@pytest.fixture
async def wired(
    postgresql: EngineServer,
) -> AsyncIterator[tuple[EngineServer, list[Wire], list[Caches]]]:
    with run(make_redis()) as store:
        async with fresh_database(postgresql) as database:
            wires = [Wire(store.port) for _ in range(SIDECARS)]
            all_of_them = []
            for wire in wires:
                await wire.open()
                through = key_value(dataclasses.replace(store, port=wire.port))
                engines = Engines(dragonflydb=through, postgresql=sql(postgresql, database))
                all_of_them.append(open_caches(engines))
            yield store, wires, all_of_them
            for caches in all_of_them:
                await caches.close()
            for wire in wires:
                await wire.shut()


async def test_nobody_ever_reads_what_was_written_over(
    wired: tuple[EngineServer, list[Wire], list[Caches]],
) -> None:
    store, wires, all_of_them = wired
    ledger = Ledger()
    stop = asyncio.Event()
    chance = random.Random(7)

    async def writer(place: int) -> None:
        number = 0
        mine = random.Random(place)
        while not stop.is_set():
            number += 1
            name = f"{place}-{mine.randrange(KEYS_EACH)}"
            key = Key(Kind.CACHE, name)
            deadline = Deadline.after(2.0)
            tiers = all_of_them[place].tiers
            try:
                if mine.random() < 0.2:
                    await tiers.delete(key, deadline)
                else:
                    await tiers.put(key, str(number).encode(), None, deadline)
            except Problem:
                continue
            ledger.acknowledged(name, number)
            await check(place, name, time.monotonic())
            for _ in range(3):
                # Nobody else writes these: what is older than the newest is wrong at once.
                await check(place, f"{place}-{mine.randrange(KEYS_EACH)}", time.monotonic())
            await asyncio.sleep(mine.random() * 0.05)

    async def reader(place: int) -> None:
        mine = random.Random(100 + place)
        while not stop.is_set():
            name = f"{mine.randrange(SIDECARS)}-{mine.randrange(KEYS_EACH)}"
            own = name.startswith(f"{place}-")
            if not own:
                await check(place, name, time.monotonic() - MOMENT_SECONDS)
            await asyncio.sleep(mine.random() * 0.01)

    async def check(place: int, name: str, before: float) -> None:
        least = ledger.least(name, before)
        try:
            found = await all_of_them[place].tiers.get(Key(Kind.CACHE, name), Deadline.after(2.0))
        except Problem:
            return
        ledger.reads += 1
        if found is not None:
            ledger.answered += 1
            assert int(found.value) >= least, (place, name, found, least)

    async def look(place: int) -> None:
        while not stop.is_set():
            await all_of_them[place].tiers.look()
            await asyncio.sleep(1.0)

    async def trouble() -> None:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            wire = chance.choice(wires)
            match chance.randrange(4):
                case 0:
                    await wire.shut()
                    await asyncio.sleep(chance.uniform(0.05, 1.5))
                    await wire.open()
                case 1:
                    await wire.shut()
                    await wire.open()
                case 2:
                    # What was written since its last snapshot is lost.
                    store.kill()
                    await asyncio.sleep(chance.uniform(0.0, 0.5))
                    await asyncio.to_thread(store.start)
                case _:
                    await asyncio.to_thread(store.stop)
                    await asyncio.to_thread(store.start)
        stop.set()

    async with asyncio.TaskGroup() as group:
        for place in range(SIDECARS):
            group.create_task(writer(place))
            group.create_task(reader(place))
            group.create_task(look(place))
        group.create_task(trouble())

    assert sum(len(writes) for writes in ledger.written.values()) > 100
    assert ledger.answered > 100
