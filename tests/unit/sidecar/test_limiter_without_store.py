"""The limiter while the store is away: what the caller asked for, and what still holds."""

import asyncio

import pytest
from msgspec import UNSET

from fixtures.fix_clock import HandClock
from fixtures.fix_limits import Limits, spend
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import (
    BreakerOpen,
    BulkheadFull,
    EngineNotConfigured,
    EngineUnavailable,
    Problem,
    QueryRejected,
)
from plan2_sidecar.limits.fallback import Fallback
from plan2_sidecar.limits.model import Algorithm, OnStoreFailure, RateLimitCheck, Source

DOWN = EngineUnavailable("nobody is there")
DAY_MS = 86_400_000


async def test_without_a_store_each_sidecar_admits_its_share(limits: Limits) -> None:
    limits.store.problem = DOWN
    limits.crowd.sidecars = 3
    decisions = [await limits.check(limit=10, window_ms=1000) for _ in range(4)]
    limits.clock.now += 1.0
    later = await limits.check(limit=10, window_ms=1000)

    assert [decision.allowed for decision in decisions] == [True, True, True, False]
    assert {(decision.source, decision.degraded) for decision in decisions} == {
        (Source.FALLBACK, True)
    }
    assert [decision.remaining for decision in decisions] == [2, 1, 0, 0]
    assert decisions[3].retry_after_ms == 1000
    assert decisions[3].total_hits == 11
    assert later.allowed


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize(("mode", "allowed"), [("open", 5), ("closed", 0), ("local", 2)])
async def test_without_a_store_the_caller_has_said_what_to_do(
    limits: Limits, algorithm: Algorithm, mode: str, allowed: int
) -> None:
    limits.store.problem = BreakerOpen("it has been failing")
    limits.crowd.sidecars = 2
    told = [
        await limits.check(limit=4, algorithm=algorithm, on_store_failure=OnStoreFailure(mode))
        for _ in range(5)
    ]

    assert sum(decision.allowed for decision in told) == allowed
    assert all(decision.degraded for decision in told)
    assert all(
        (decision.retry_after_ms is UNSET) == decision.allowed
        and (decision.total_hits > 4) != decision.allowed
        for decision in told
    )


async def test_a_share_is_at_least_one(limits: Limits) -> None:
    limits.store.problem = DOWN
    limits.crowd.sidecars = 50

    assert await spend(limits, 2, limit=5) == [True, False]


async def test_leases_and_denials_outlast_the_store(limits: Limits) -> None:
    for _ in range(20):
        limits.clock.now += 0.0001
        last = await limits.check(limit=1000, window_ms=DAY_MS)
    await spend(limits, 2, client_id="full", limit=2)
    limits.store.problem = DOWN
    limits.clock.now += 10.0

    held = await limits.check(limit=1000, window_ms=DAY_MS, on_store_failure=OnStoreFailure.CLOSED)
    full = await limits.check("full", limit=2, on_store_failure=OnStoreFailure.OPEN)

    assert (held.allowed, held.source, held.degraded) == (True, Source.LEASE, False)
    assert held.remaining == last.remaining - 1
    assert (full.allowed, full.source, full.degraded) == (False, Source.DENY_CACHE, False)


async def test_a_store_that_hangs_is_given_up_at_the_deadline(limits: Limits) -> None:
    limits.store.gate.clear()
    check = RateLimitCheck(client_id="c", limit=5)

    decided = await limits.limiter.check(check, Deadline.after(0.05, limits.clock))

    assert (decided.allowed, decided.degraded) == (True, True)
    limits.store.gate.set()


@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize("problem", [EngineNotConfigured("none"), QueryRejected("WRONGTYPE")])
async def test_what_is_no_outage_is_told(
    limits: Limits, algorithm: Algorithm, problem: Problem
) -> None:
    limits.store.problem = problem

    with pytest.raises(type(problem)):
        await asyncio.wait_for(limits.check(limit=5, algorithm=algorithm), 5)


@pytest.mark.parametrize("algorithm", list(Algorithm))
async def test_a_full_bulkhead_is_waited_for(limits: Limits, algorithm: Algorithm) -> None:
    limits.store.lost = [BulkheadFull("busy"), BulkheadFull("busy")]

    decided = await limits.check(limit=5, algorithm=algorithm)

    assert (decided.allowed, decided.source) == (True, Source.STORE)


def test_what_was_admitted_during_an_outage_is_bounded(clock: HandClock) -> None:
    fallback = Fallback(clock, most=10)
    for number in range(100):
        fallback.decide(RateLimitCheck(client_id=f"c{number}", limit=1), 1)

    assert fallback.decide(RateLimitCheck(client_id="c0", limit=1), 1).allowed
    assert not fallback.decide(RateLimitCheck(client_id="c99", limit=1), 1).allowed
