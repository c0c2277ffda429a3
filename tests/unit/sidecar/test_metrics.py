"""Metrics: every family is documented, and what a page says."""

import time

import pytest

from fixtures.fix_memory_engine import MemoryEngines
from plan2_contract.engines import Engine
from plan2_sidecar import metrics
from plan2_sidecar.cache.l1 import L1, OVERHEAD_BYTES
from plan2_sidecar.cache.tiers import Tiers
from plan2_sidecar.connections import ConnectionEnvironment
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import EngineUnavailable
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.metrics import Metrics
from plan2_sidecar.query import Query
from plan2_sidecar.sagas.record import State
from plan2_sidecar.sagas.request import Mode


@pytest.fixture
def engines() -> MemoryEngines:
    return MemoryEngines()


@pytest.fixture
def fleet(engines: MemoryEngines) -> Fleet:
    fleet = Fleet(ConnectionEnvironment({"POSTGRES_HOST": "memory"}), opener=engines.open)
    fleet.refresh()
    return fleet


async def page(fleet: Fleet) -> str:
    measured = Metrics(fleet)
    tiers = Tiers(fleet, Database(fleet, migrates=False), L1(10_000), time.monotonic)
    tiers.l1.put(b"k", b"v")
    tiers.levels.counts["l1", "hit"] += 2
    measured.watch(tiers.levels)
    measured.request("/api/v2/query", "POST", 200)
    measured.query(Engine.POSTGRESQL, "target", "ok", 0.003)
    measured.cross_db_ended(Mode.SAGA, State.DEAD)
    return measured.render().decode()


async def test_every_family_is_documented_and_every_documented_one_exists(fleet: Fleet) -> None:
    text = await page(fleet)
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    documented = {
        line.split("{")[0].split()[0]
        for line in (metrics.__doc__ or "").splitlines()
        if line.strip().startswith(metrics.PREFIX)
    }

    assert families == documented


async def test_counters_carry_engine_rung_and_outcome(fleet: Fleet) -> None:
    text = await page(fleet)

    assert 'plan2_sidecar_queries_total{code="ok",engine="postgresql",route="target"} 1.0' in text
    assert (
        'plan2_sidecar_requests_total{method="POST",path="/api/v2/query",status="200"} 1.0' in text
    )
    assert 'plan2_sidecar_pool_connections{engine="postgresql",state="max"} 20.0' in text


async def test_operations_are_counted_from_nought_by_how_they_ended(fleet: Fleet) -> None:
    text = await page(fleet)

    family = "plan2_sidecar_cross_db_operations_total"
    assert f'{family}{{mode="saga",state="dead"}} 1.0' in text
    assert f'{family}{{mode="outbox",state="dead"}} 0.0' in text


async def test_the_caches_tell_their_hits_and_their_size(fleet: Fleet) -> None:
    text = await page(fleet)

    assert 'plan2_sidecar_cache_requests_total{level="l1",result="hit"} 2.0' in text
    assert f"plan2_sidecar_cache_bytes {OVERHEAD_BYTES + 2}.0" in text


async def test_an_engine_nobody_asked_is_neither_up_nor_down(fleet: Fleet) -> None:
    assert "plan2_sidecar_engine_up{" not in await page(fleet)


async def test_an_open_breaker_is_seen(fleet: Fleet, engines: MemoryEngines) -> None:
    engines.problem = EngineUnavailable("down")
    for _ in range(5):
        with pytest.raises(EngineUnavailable):
            await fleet.member(Engine.POSTGRESQL).execute(Query(query="x"), Deadline.after(5))

    text = await page(fleet)

    assert 'plan2_sidecar_breaker_open{engine="postgresql"} 1.0' in text
    assert 'plan2_sidecar_engine_up{engine="postgresql"} 0.0' in text
