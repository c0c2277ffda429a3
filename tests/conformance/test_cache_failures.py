"""The caches while the store, the ledger or both are away, and after they come back."""

import asyncio
import dataclasses
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from fixtures.cache_lab import (
    Caches,
    Wire,
    fresh_database,
    healed,
    key_value,
    open_caches,
    sees,
    soon,
    sql,
    value_of,
)
from fixtures.fix_engines import EngineServer, make_redis, run
from fixtures.fix_sidecar import eventually
from plan2_contract.connection import Engines
from plan2_contract.engines import Engine
from plan2_sidecar.cache.keys import Key, Kind
from plan2_sidecar.cache.l1 import FRESH_SECONDS
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import EngineUnavailable, StoreFull
from plan2_sidecar.store import Store

Open = Callable[[Engines], Caches]


@pytest.fixture
def store() -> Iterator[EngineServer]:
    """A store of this test's own: it is stopped, killed and filled."""
    with run(make_redis()) as server:
        yield server


@pytest.fixture
async def engines(store: EngineServer, postgresql: EngineServer) -> AsyncIterator[Engines]:
    async with fresh_database(postgresql) as database:
        yield Engines(dragonflydb=key_value(store), postgresql=sql(postgresql, database))


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    all_of_them: list[Caches] = []

    def open_some(engines: Engines) -> Caches:
        all_of_them.append(open_caches(engines))
        return all_of_them[-1]

    yield open_some
    for caches in all_of_them:
        await caches.close()


@pytest.fixture
def key() -> Key:
    return Key(Kind.CACHE, uuid.uuid4().hex)


async def test_a_write_while_the_store_was_away_is_never_undone_by_its_return(
    store: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    one, other = opened(engines), opened(engines)
    deleted = Key(Kind.CACHE, key.name + "d")
    await one.tiers.put(key, b'"old"', None, soon())
    await one.tiers.put(deleted, b'"old"', None, soon())
    assert await value_of(other, key) == b'"old"'
    store.stop()

    written = await one.tiers.put(key, b'"new"', None, soon())
    gone = await one.tiers.delete(deleted, soon())

    assert written.degraded
    assert gone.degraded
    assert await one.tiers.find(deleted, soon()) == (None, True)
    found = await one.tiers.get(key, soon())
    assert found is not None
    assert (found.value, found.source, found.degraded) == (b'"new"', "l1", True)
    assert await value_of(other, key) is None

    store.start()
    until = time.monotonic() + 4
    while time.monotonic() < until or not other.tiers.shared.linked:
        assert await value_of(one, key) in (None, b'"new"')
        assert await value_of(other, key) is None
        assert await value_of(one, deleted) is None
        assert await value_of(other, deleted) is None
        await asyncio.sleep(0.02)
    late = opened(engines)
    assert await value_of(late, key) is None


async def test_a_store_that_lost_acknowledged_writes_is_not_believed(
    store: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    one, other = opened(engines), opened(engines)
    await one.tiers.put(key, b'"older"', None, soon())
    await one.tiers.shared.ask(("SAVE",), deadline=soon(), seconds=5)
    await one.tiers.put(key, b'"newer"', None, soon())
    assert await value_of(other, key) == b'"newer"'
    store.kill()
    store.start()
    raw = Store(one.fleet)
    await eventually(lambda: answers(raw), seconds=30)
    assert await raw.ask("GET", b"p2:c:" + key.name.encode(), deadline=soon()) == b'"older"'

    late = opened(engines)
    await healed(one, other, late)

    assert [await value_of(caches, key) for caches in (one, other, late)] == [None] * 3
    await other.tiers.put(key, b'"newest"', None, soon())
    assert [await value_of(caches, key) for caches in (one, other, late)] == [b'"newest"'] * 3


async def answers(store: Store) -> bool:
    try:
        return bool(await store.ask("PING", deadline=soon()))
    except EngineUnavailable:
        return False


async def test_without_postgresql_a_restarted_store_is_not_believed_either(
    store: EngineServer, opened: Open, key: Key
) -> None:
    engines = Engines(dragonflydb=key_value(store))
    one, other = opened(engines), opened(engines)
    await one.tiers.put(key, b'"old"', None, soon())
    assert await value_of(other, key) == b'"old"'
    store.stop()
    store.start()
    await healed(one, other)

    assert await value_of(one, key) is None
    assert await value_of(other, key) is None
    await one.tiers.put(key, b'"new"', None, soon())
    assert await value_of(other, key) == b'"new"'


async def test_without_postgresql_a_write_while_the_store_is_away_is_refused(
    store: EngineServer, opened: Open, key: Key
) -> None:
    one = opened(Engines(dragonflydb=key_value(store)))
    await one.tiers.put(key, b"1", None, soon())
    store.stop()

    with pytest.raises(EngineUnavailable):
        await one.tiers.put(key, b"2", None, soon())
    with pytest.raises(EngineUnavailable):
        await one.tiers.delete(key, soon())
    assert await value_of(one, key) is None


async def test_with_both_away_nothing_is_acknowledged(
    store: EngineServer, postgresql: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    one = opened(engines)
    await one.tiers.put(key, b"1", None, soon())
    store.stop()
    postgresql.stop()
    try:
        with pytest.raises(EngineUnavailable, match="PostgreSQL"):
            await one.tiers.put(key, b"2", None, soon())
        with pytest.raises(EngineUnavailable):
            await one.tiers.delete(key, soon())
        assert await value_of(one, key) is None
    finally:
        postgresql.start()


async def test_the_cache_goes_on_without_postgresql_while_the_store_is_there(
    postgresql: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    one, other = opened(engines), opened(engines)
    await one.tiers.put(key, b"1", None, soon())
    assert await value_of(other, key) == b"1"
    postgresql.stop()
    try:
        await one.tiers.look()
        written = await one.tiers.put(key, b"2", None, soon())
        assert not written.degraded
        await eventually(lambda: sees(other, key, b"2"), seconds=1)
    finally:
        postgresql.start()


async def test_a_store_cannot_be_believed_before_the_epoch_is_known(
    store: EngineServer, postgresql: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    one = opened(engines)
    await one.tiers.put(key, b'"old"', None, soon())
    postgresql.stop()
    try:
        late = opened(engines)
        assert await late.tiers.find(key, soon()) == (None, True)
    finally:
        postgresql.start()
    await healed(late)
    assert await value_of(late, key) == b'"old"'


async def test_a_sidecar_cut_off_from_the_store_is_heard_by_the_others(
    store: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    wire = Wire(store.port)
    await wire.open()
    cut = opened(
        Engines(
            dragonflydb=key_value(dataclasses.replace(store, port=wire.port)),
            postgresql=engines.postgresql,
        )
    )
    other = opened(engines)
    await cut.tiers.put(key, b'"old"', None, soon())
    assert await value_of(other, key) == b'"old"'
    await wire.shut()

    written = await cut.tiers.put(key, b'"new"', None, soon())
    await other.tiers.look()

    assert written.degraded
    assert await value_of(other, key) is None
    await other.tiers.put(key, b'"newest"', None, soon())
    await wire.open()
    await healed(cut)
    assert await value_of(cut, key) == b'"newest"'
    await wire.shut()


async def test_anothers_raise_ends_what_was_kept_here_meanwhile(
    store: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    one, other = opened(engines), opened(engines)
    await one.tiers.put(Key(Kind.CACHE, "warm"), b"1", None, soon())
    await other.tiers.put(Key(Kind.CACHE, "warm"), b"1", None, soon())
    store.stop()
    await one.tiers.put(key, b"1", None, soon())
    await one.tiers.put(Key(Kind.CACHE, key.name + "2"), b"2", None, soon())
    assert await value_of(one, key) == b"1"

    await other.tiers.put(key, b"3", None, soon())
    await one.tiers.put(Key(Kind.CACHE, key.name + "4"), b"4", None, soon())

    assert await value_of(one, key) is None
    assert await value_of(other, key) == b"3"


async def test_many_writes_without_the_store_share_a_raise(
    store: EngineServer, engines: Engines, opened: Open
) -> None:
    one = opened(engines)
    await one.tiers.put(Key(Kind.CACHE, "warm"), b"1", None, soon())
    before = one.tiers.shared.epoch.number
    store.stop()

    written = await asyncio.gather(
        *(one.tiers.put(Key(Kind.CACHE, str(n)), b"1", None, soon()) for n in range(200))
    )

    assert all(answer.degraded for answer in written)
    assert [await value_of(one, Key(Kind.CACHE, str(n))) for n in range(200)] == [b"1"] * 200
    assert one.tiers.shared.epoch.number - before <= 20


async def test_the_legacy_redis_answers_while_the_store_is_away(
    store: EngineServer,
    redis_legacy: EngineServer,
    engines: Engines,
    opened: Open,
    key: Key,
) -> None:
    one = opened(
        Engines(
            dragonflydb=engines.dragonflydb,
            redis=key_value(redis_legacy),
            postgresql=engines.postgresql,
        )
    )
    legacy = Store(one.fleet, Engine.REDIS)
    await legacy.ask("SET", key.name, b'"legacy"', "EX", 100, deadline=soon())
    await legacy.ask("HSET", key.name + "h", "a", "b", deadline=soon())
    store.stop()

    found = await one.tiers.get(key, soon(), legacy=key.name)
    assert found is not None
    assert (found.value, found.source, found.degraded) == (b'"legacy"', "redis", True)
    assert found.ttl_seconds in (99, 100)
    hashed = Key(Kind.CACHE, key.name + "h")
    assert await one.tiers.get(hashed, soon(), legacy=hashed.name) is None

    await one.tiers.delete(key, soon())
    assert await one.tiers.get(key, soon(), legacy=key.name) is None
    await one.tiers.put(key, b'"mine"', None, soon())
    assert await value_of(one, key) == b'"mine"'
    assert await legacy.ask("GET", key.name, deadline=soon()) == b'"legacy"'


async def test_a_full_store_refuses_and_goes_on_reading(
    engines: Engines, opened: Open, key: Key
) -> None:
    one = opened(engines)
    await one.tiers.put(key, b"1", None, soon())
    epoch = one.tiers.shared.epoch.number
    await one.tiers.shared.ask(("CONFIG", "SET", "maxmemory", "1"), deadline=soon())
    try:
        with pytest.raises(StoreFull):
            await one.tiers.put(key, b"2", None, soon())
        assert await value_of(one, key) == b"1"

        async def loader() -> bytes:
            return b"3"

        loaded = await one.tiers.load(Key(Kind.QUERY, key.name), 5000, loader, soon())
        assert (loaded.value, loaded.state) == (b"3", "miss")
        assert not (await one.tiers.delete(key, soon())).degraded
        assert await value_of(one, key) is None
        assert one.tiers.shared.epoch.number == epoch
    finally:
        await one.tiers.shared.ask(("CONFIG", "SET", "maxmemory", "0"), deadline=soon())


async def test_what_was_remembered_goes_when_the_link_is_cut(
    store: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    one = opened(engines)
    await healed(one)
    await one.tiers.put(key, b"1", None, soon())
    await value_of(one, key)
    assert len(one.tiers.l1) == 1

    store.kill()
    await eventually(lambda: nothing_remembered(one), every=0.005)

    assert await value_of(one, key) is None


async def cut_off(caches: Caches) -> bool:
    return not caches.tiers.shared.linked


async def nothing_remembered(caches: Caches) -> bool:
    return len(caches.tiers.l1) == 0


async def test_a_refill_after_the_store_was_away_is_no_stampede(
    store: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    one = opened(engines)
    calls = 0

    async def loader() -> bytes:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.1)
        return b"1"

    async def all_at_once() -> None:
        answers = await asyncio.gather(
            *(one.tiers.load(key, 60_000, loader, soon()) for _ in range(1000))
        )
        assert {answer.value for answer in answers} == {b"1"}

    await healed(one)
    await all_at_once()
    assert calls == 1
    store.stop()
    await eventually(lambda: cut_off(one))
    await all_at_once()
    assert calls == 2
    store.start()
    await healed(one)
    await all_at_once()
    assert calls == 3


async def test_a_callers_own_time_is_no_reason_to_raise_the_epoch(
    engines: Engines, opened: Open, key: Key
) -> None:
    one = opened(engines)
    await one.tiers.put(key, b"1", None, soon())
    await one.tiers.look()
    epoch = one.tiers.shared.epoch.number

    for _ in range(5):
        with pytest.raises(Exception, match="time given"):
            await one.tiers.put(key, b"2", None, Deadline.after(1e-9))

    assert one.tiers.shared.epoch.number == epoch


async def test_what_was_kept_here_in_one_outage_is_gone_in_the_next(
    store: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    one, other = opened(engines), opened(engines)
    store.stop()
    await one.tiers.put(key, b'"old"', None, soon())
    store.start()
    await healed(one, other)
    await other.tiers.put(key, b'"new"', None, soon())
    store.stop()

    assert await value_of(one, key) is None


async def test_what_an_older_epoch_left_is_taken_away(
    store: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    one = opened(engines)
    for number in range(1200):
        await one.tiers.put(Key(Kind.CACHE, f"{key.name}{number}"), b"1", None, soon())
    limit = b"p2:l:fixed-window:1000:somebody"
    await one.tiers.shared.ask(("SET", limit, 1), ("SET", "p2", 1), deadline=soon())
    store.stop()
    store.start()
    await healed(one)
    await one.tiers.put(key, b"2", None, soon())

    async def clean() -> bool:
        await one.tiers.look()
        left = (await one.tiers.shared.ask(("KEYS", "*"), deadline=soon()))[0]
        lock = f"p2:sweep:{one.tiers.shared.epoch.number}".encode()
        return set(left) == {b"p2:epoch", lock, b"p2", limit, one.tiers.shared.name(key)}

    await eventually(clean)
    assert await value_of(one, key) == b"2"


async def test_a_sidecar_that_dozed_learns_the_epoch_before_it_reads(
    store: EngineServer, engines: Engines, opened: Open, key: Key
) -> None:
    wire = Wire(store.port)
    await wire.open()
    through = key_value(dataclasses.replace(store, port=wire.port))
    cut = opened(Engines(dragonflydb=through, postgresql=engines.postgresql))
    dozing = opened(engines)
    await cut.tiers.put(key, b'"old"', None, soon())
    assert await value_of(dozing, key) == b'"old"'
    await wire.shut()
    assert (await cut.tiers.put(key, b'"new"', None, soon())).degraded

    # L1 has it for a second at most.
    await asyncio.sleep(FRESH_SECONDS)
    dozing.tiers.shared._dozing = True
    assert await value_of(dozing, key) is None
