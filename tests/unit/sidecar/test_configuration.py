"""Conditions of a write, what it leaves in the caches, and when changes are copied."""

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import pytest

from fixtures.fix_clock import HandClock
from plan2_sidecar.cache.keys import Key, Kind
from plan2_sidecar.cache.tiers import Written
from plan2_sidecar.configuration import Configuration, Precondition, _cached_key, _stored_key
from plan2_sidecar.configuration.copies import BATCH, SWEEP_SECONDS, Copies
from plan2_sidecar.configuration.truth import Stored
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import ConnectionLost, EngineUnavailable, Problem
from plan2_sidecar.sessions import Sessions


@pytest.mark.parametrize(
    ("wanted", "version", "exists", "holds"),
    [
        (Precondition(), 0, False, True),
        (Precondition(), 7, True, True),
        (Precondition(exists=False), 0, False, True),
        (Precondition(exists=False), 3, False, True),
        (Precondition(exists=False), 3, True, False),
        (Precondition(exists=True), 3, True, True),
        (Precondition(exists=True), 3, False, False),
        (Precondition(versions=frozenset({3})), 3, True, True),
        (Precondition(versions=frozenset({2, 3})), 3, True, True),
        (Precondition(versions=frozenset({2})), 3, True, False),
        # A deleted value has a version that nobody can mean.
        (Precondition(versions=frozenset({3})), 3, False, False),
    ],
)
def test_a_precondition_looks_at_version_and_value(
    wanted: Precondition, version: int, exists: bool, holds: bool
) -> None:
    assert wanted.holds(version, exists) is holds


def test_no_two_values_share_a_key_in_the_caches() -> None:
    users = ["a", "a/b", "a%2Fb", "cached", "cached:a"]
    pairs = [(user, key) for user in users for key in ("b", "c", "b/c", "a/b")]
    keys = [make(*pair) for pair in pairs for make in (_stored_key, _cached_key)]

    assert len(set(keys)) == len(keys)


class Source:
    """Stands for PostgreSQL and ClickHouse both; counts how often it was copied from."""

    configured = True

    def __init__(self) -> None:
        self.copies = 0
        self.waiting = 0
        self.away = False

    async def run(self, work: Any, deadline: Any, *, needs: int) -> int:
        self.copies += 1
        if self.away:
            raise EngineUnavailable("away")
        taken = min(self.waiting, BATCH)
        self.waiting -= taken
        return taken


@pytest.fixture
def source() -> Source:
    return Source()


def copies(source: Source, clock: HandClock, *, sweeps: bool) -> Copies:
    both: Any = source
    return Copies(both, both, clock, lambda: 0.5, sweeps=sweeps)


async def test_a_change_is_copied_by_the_next_look(source: Source, clock: HandClock) -> None:
    made = copies(source, clock, sweeps=False)
    await made.look()
    assert source.copies == 0

    made.wanted()
    await made.look()
    await made.look()

    assert source.copies == 1


async def test_all_that_waits_is_copied_in_one_look(source: Source, clock: HandClock) -> None:
    made = copies(source, clock, sweeps=False)
    source.waiting = BATCH * 2 + 1

    made.wanted()
    await made.look()

    assert (source.copies, source.waiting) == (3, 0)


async def test_while_clickhouse_is_away_it_is_tried_less_and_less(
    source: Source, clock: HandClock
) -> None:
    made = copies(source, clock, sweeps=False)
    source.away = True
    tries = []
    for second in range(120):
        before = source.copies
        made.wanted()
        await made.look()
        clock.now += 1
        tries += [second] if source.copies > before else []

    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert tries[0] == 0
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 20

    source.away = False
    clock.now += 60
    await made.look()
    made.wanted()
    await made.look()
    assert source.copies == len(tries) + 2


async def test_what_others_left_is_found_by_a_sidecar_that_sweeps(
    source: Source, clock: HandClock
) -> None:
    made = copies(source, clock, sweeps=True)
    await made.look()
    assert source.copies == 0

    clock.now += SWEEP_SECONDS
    await made.look()

    assert source.copies == 1


class Database:
    """PostgreSQL that commits when the test lets it."""

    configured = True

    def __init__(self) -> None:
        self.committing = asyncio.Event()
        self.go = asyncio.Event()
        self.problem: Problem | None = None

    async def run(self, work: Any, deadline: Any, *, needs: int) -> Any:
        self.committing.set()
        await self.go.wait()
        if self.problem is not None:
            raise self.problem
        return Stored("1", 7)


class Caches:
    """Remembers what it was told to forget."""

    configured = True

    def __init__(self) -> None:
        self.forgotten: list[Key] = []

    async def delete(self, key: Key, deadline: Any) -> Written:
        self.forgotten.append(key)
        return Written()

    async def get(self, key: Key, deadline: Any) -> None:
        return None


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def caches() -> Caches:
    return Caches()


def writes(database: Any, caches: Any, source: Any) -> list[Coroutine[Any, Any, Any]]:
    """A write of each resource that PostgreSQL holds."""
    soon = Deadline.after(30)
    configuration = Configuration(database, caches, copies(source, HandClock(), sweeps=False))
    sessions = Sessions(database, caches, sweeps=False)
    return [
        configuration.put("u", "k", "1", soon, actor="ada"),
        configuration.delete("u", "k", soon, actor="ada"),
        sessions.put("s", b"1", 60, soon, durable=True),
        sessions.delete("s", soon),
    ]


FORGOTTEN = [
    [_cached_key("u", "k"), _stored_key("u", "k")],
    [_cached_key("u", "k"), _stored_key("u", "k")],
    [Key(Kind.SESSION, "s")],
    [Key(Kind.SESSION, "s")],
]
the_write = pytest.mark.parametrize(
    "index", range(4), ids=["config put", "config delete", "session put", "session delete"]
)


@the_write
async def test_a_caller_who_leaves_while_it_is_committed_leaves_no_old_copy_behind(
    index: int, database: Database, caches: Caches, source: Source
) -> None:
    work = writes(database, caches, source)
    caller = asyncio.create_task(work.pop(index))
    for other in work:
        other.close()
    await database.committing.wait()

    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    database.go.set()
    await asyncio.sleep(0.01)

    assert caches.forgotten == FORGOTTEN[index]


@the_write
async def test_a_write_whose_end_is_not_known_leaves_no_old_copy_behind(
    index: int, database: Database, caches: Caches, source: Source
) -> None:
    work = writes(database, caches, source)
    writing = work.pop(index)
    for other in work:
        other.close()
    database.problem = ConnectionLost("lost")
    database.go.set()

    with pytest.raises(ConnectionLost):
        await writing

    assert caches.forgotten == FORGOTTEN[index]
