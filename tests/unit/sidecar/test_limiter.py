"""The limiter of one sidecar or two: leases, denials, order, costs and resets."""

import asyncio
from typing import Any

import pytest
from msgspec import UNSET

from fixtures.fix_limits import Limits, spend
from plan2_sidecar.errors import (
    ConnectionLost,
    EngineUnavailable,
    QueryRejected,
)
from plan2_sidecar.limits import clients
from plan2_sidecar.limits.lease import Grant, Lease
from plan2_sidecar.limits.model import Algorithm, OnStoreFailure, RateLimitCheck, Source

DOWN = EngineUnavailable("nobody is there")
DAY_MS = 86_400_000


async def test_what_a_limit_says_from_the_first_hit_to_the_first_denial(limits: Limits) -> None:
    first = await limits.check(limit=2, window_ms=1000)
    limits.clock.now += 0.25
    await limits.check(limit=2, window_ms=1000)
    denied = await limits.check(limit=2, window_ms=1000)

    assert (first.allowed, first.remaining, first.total_hits, first.reset_ms) == (True, 1, 1, 1000)
    assert first.retry_after_ms is UNSET
    assert (denied.allowed, denied.remaining, denied.total_hits) == (False, 0, 3)
    assert denied.retry_after_ms == denied.reset_ms == 750


async def test_a_denial_is_answered_here_until_the_window_ends(limits: Limits) -> None:
    await spend(limits, 3, limit=3, window_ms=1000)
    asked = limits.store.scripts

    for _ in range(5):
        limits.clock.now += 0.15
        denied = await limits.check(limit=3, window_ms=1000)
        assert denied.source is Source.DENY_CACHE
    assert limits.store.scripts == asked
    limits.clock.now += 0.3
    assert (await limits.check(limit=3, window_ms=1000)).allowed


async def test_a_busy_client_is_answered_from_leases(limits: Limits) -> None:
    sources = []
    for _ in range(1000):
        limits.clock.now += 0.0001
        sources.append((await limits.check(limit=100_000)).source)

    assert limits.store.scripts < 25
    assert sources.count(Source.LEASE) > 970


async def test_a_slow_client_leaves_nothing_in_reserve(limits: Limits) -> None:
    other = limits.beside()
    for _ in range(50):
        await limits.check(limit=100)
        limits.clock.now += 0.5

    assert await spend(other, 51, limit=100) == [True] * 50 + [False]


async def test_exact_leaves_nothing_in_reserve(limits: Limits) -> None:
    other = limits.beside()
    for _ in range(50):
        limits.clock.now += 0.0001
        await limits.check(limit=100, exact=True)

    assert await spend(other, 51, limit=100, exact=True) == [True] * 50 + [False]


async def test_two_sidecars_admit_the_limit_and_no_more(limits: Limits) -> None:
    other = limits.beside()
    admitted = 0
    for _ in range(400):
        limits.clock.now += 0.0002
        admitted += (await limits.check(limit=300)).allowed
        admitted += (await other.check(limit=300)).allowed

    assert admitted == 300


async def test_checks_at_once_share_one_grant_and_keep_their_order(limits: Limits) -> None:
    decisions = await asyncio.gather(*(limits.check(limit=60) for _ in range(100)))

    assert limits.store.scripts <= 2
    assert [decision.allowed for decision in decisions] == [True] * 60 + [False] * 40
    assert [decision.remaining for decision in decisions[:60]] == list(range(59, -1, -1))


async def test_a_cheaper_check_does_not_overtake_a_dear_one(limits: Limits) -> None:
    await limits.check(limit=10)
    limits.store.gate.clear()
    dear = asyncio.create_task(limits.check(limit=10, cost=9))
    await asyncio.sleep(0.01)
    cheap = asyncio.create_task(limits.check(limit=10))
    await asyncio.sleep(0.01)
    limits.store.gate.set()

    assert (await dear).allowed
    assert not (await cheap).allowed


async def test_a_check_that_arrives_during_a_grant_does_not_spend_a_window_that_is_over(
    limits: Limits,
) -> None:
    limits.store.gate.clear()
    waiting = [asyncio.create_task(limits.check(limit=5, window_ms=100)) for _ in range(2)]
    await asyncio.sleep(0.01)
    late = asyncio.create_task(limits.check(limit=5, window_ms=100))
    await asyncio.sleep(0.01)
    limits.clock.now += 1.0
    limits.store.gate.set()

    # Those two were counted in the first window by the store itself, the third in the second.
    assert [(await task).allowed for task in waiting] == [True, True]
    assert (await late).remaining == 4


def test_the_time_a_reply_took_is_not_added_to_a_lease() -> None:
    lease, check = Lease(), RateLimitCheck(client_id="c")
    lease.take(Grant(tokens=10, used=10, ttl_ms=1000, window=1), sent=100.0, now=100.4)

    held, over = lease.decide(check, 100.998), lease.decide(check, 100.999)

    assert held is not None
    assert held.reset_ms == 403, "the caller is told the latest end, not the earliest"
    assert over is None


def test_tokens_of_a_window_that_is_over_are_not_added_to_the_next() -> None:
    lease, check = Lease(), RateLimitCheck(client_id="c", cost=8)
    lease.take(Grant(tokens=7, used=7, ttl_ms=1000, window=1), sent=100.0, now=100.1)

    lease.take(Grant(tokens=7, used=7, ttl_ms=1000, window=2), sent=100.9, now=101.1)
    assert lease.decide(check, 101.2) is None
    lease.take(Grant(tokens=7, used=14, ttl_ms=600, window=2), sent=101.3, now=101.3)
    assert lease.decide(check, 101.3) is not None


async def test_tokens_held_until_only_the_store_knows_the_window_are_used_first(
    limits: Limits,
) -> None:
    month: dict[str, Any] = {"limit": 1000, "window_ms": 30 * DAY_MS}
    other = limits.beside()
    for _ in range(20):
        limits.clock.now += 0.0001
        await limits.check(**month)
    granted = (await other.check(**month, peek=True)).total_hits
    assert granted > 20

    # Two clocks may have run apart by minutes since the grant.
    limits.clock.now += 30 * DAY_MS / 1000 - 60.0

    assert (await limits.check(**month)).allowed
    assert (await other.check(**month, peek=True)).total_hits == granted


async def test_a_dear_check_asks_for_what_its_sidecar_lacks(limits: Limits) -> None:
    for _ in range(30):
        limits.clock.now += 0.0001
        await limits.check(limit=200)
    decisions = [await limits.check(limit=200, cost=34) for _ in range(5)]

    assert [decision.allowed for decision in decisions] == [True] * 5
    assert decisions[-1].remaining == 0


async def test_a_store_without_room_is_an_outage(limits: Limits) -> None:
    limits.store.problem = QueryRejected("ERR Error running script f_1: Out of memory")

    decided = await limits.check(limit=5)

    assert (decided.allowed, decided.degraded) == (True, True)


async def test_one_who_hung_up_holds_up_nobody(limits: Limits) -> None:
    limits.store.gate.clear()
    gone = asyncio.create_task(limits.check(limit=2))
    await asyncio.sleep(0.01)
    stays = asyncio.create_task(limits.check(limit=2))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0)
    limits.store.gate.set()

    assert (await stays).allowed
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_lost_reply_admits_less_and_never_more(limits: Limits) -> None:
    limits.store.lost = [ConnectionLost("cut")]
    unheard = await limits.check(limit=10, on_store_failure=OnStoreFailure.CLOSED)
    rest = await spend(limits, 10, limit=10)

    assert not unheard.allowed
    assert rest == [True] * 9 + [False]


@pytest.mark.parametrize("algorithm", list(Algorithm))
async def test_looking_takes_nothing(limits: Limits, algorithm: Algorithm) -> None:
    members: dict[str, Any] = {"limit": 3, "window_ms": 1000, "algorithm": algorithm}
    unused = await limits.check(**members, peek=True)
    await limits.check(**members)
    looks = [await limits.check(**members, cost=0) for _ in range(5)]
    dear = await limits.check(**members, peek=True, cost=3)

    assert (unused.allowed, unused.remaining, unused.total_hits, unused.reset_ms) == (True, 3, 0, 0)
    assert {(look.allowed, look.remaining, look.total_hits) for look in looks} == {(True, 2, 1)}
    assert not dear.allowed
    assert dear.retry_after_ms is not UNSET
    assert await spend(limits, 3, **members) == [True, True, False]
    assert not (await limits.check(**members, cost=0)).allowed


@pytest.mark.parametrize("algorithm", list(Algorithm))
async def test_more_than_the_limit_is_denied_without_a_time_to_come_back(
    limits: Limits, algorithm: Algorithm
) -> None:
    denied = await limits.check(limit=3, cost=4, algorithm=algorithm)

    assert not denied.allowed
    assert denied.retry_after_ms is UNSET
    assert denied.total_hits > denied.limit
    assert (await limits.check(limit=3, cost=3, algorithm=algorithm)).allowed


async def test_costs_use_up_the_limit(limits: Limits) -> None:
    decisions = [await limits.check(limit=10, cost=4) for _ in range(3)]
    last = await limits.check(limit=10, cost=2)

    assert [decision.allowed for decision in decisions] == [True, True, False]
    assert decisions[2].remaining == 2
    assert decisions[2].total_hits == 12
    assert last.allowed


async def test_two_limits_on_one_counter_are_each_kept(limits: Limits) -> None:
    low, high = {"limit": 5}, {"limit": 20}

    assert await spend(limits, 4, **high) == [True] * 4
    assert await spend(limits, 2, **low) == [True, False]
    assert await spend(limits, 16, **high) == [True] * 15 + [False]
    assert not (await limits.check(**low)).allowed
    assert await spend(limits, 6, limit=25) == [True] * 5 + [False]


async def test_a_lower_limit_is_kept_while_tokens_of_a_higher_one_are_left(limits: Limits) -> None:
    for _ in range(30):
        limits.clock.now += 0.0001
        await limits.check(limit=10_000)
    spent = (await limits.check(limit=10_000, peek=True)).total_hits

    assert spent == 30
    assert await spend(limits, 3, limit=32) == [True, True, False]


async def test_counters_differ_by_client_algorithm_and_window(limits: Limits) -> None:
    mixed: tuple[dict[str, Any], ...] = (
        {},
        {"client_id": "d"},
        {"window_ms": 1},
        {"algorithm": Algorithm.GCRA},
    )
    for members in mixed:
        assert (await limits.check(limit=1, **members)).allowed
    names = set(limits.store.lua.values)

    assert "p2:l:fixed-window:900000:c" in names
    assert "p2:l:gcra:900000:c" in names


async def test_a_reset_holds_here_at_once_and_elsewhere_within_a_second(limits: Limits) -> None:
    other = limits.beside()
    await spend(limits, 3, limit=3)
    assert not (await other.check(limit=3)).allowed

    await limits.reset()

    assert (await limits.check(limit=3)).allowed
    limits.clock.now += clients.TRUSTED_SECONDS
    assert await spend(other, 3, limit=3) == [True, True, False]


async def test_a_reset_during_a_grant_is_not_undone_by_an_old_answer(limits: Limits) -> None:
    await spend(limits, 2, limit=3)
    limits.clock.now += clients.TRUSTED_SECONDS
    limits.store.gate.clear()
    before = asyncio.create_task(limits.check(limit=3))
    await asyncio.sleep(0.01)
    await limits.reset()
    limits.store.gate.set()

    assert (await before).allowed
    assert await spend(limits, 3, limit=3) == [True, True, False]


async def test_a_reset_that_did_not_reach_the_store_is_a_problem(limits: Limits) -> None:
    await spend(limits, 3, limit=3)
    limits.store.problem = DOWN

    with pytest.raises(EngineUnavailable):
        await limits.reset()
    assert not (await limits.check(limit=3)).allowed


async def test_a_busy_client_never_waits_for_the_look_at_its_generation(limits: Limits) -> None:
    await asyncio.gather(*(limits.check(limit=100_000, window_ms=DAY_MS) for _ in range(200)))
    await limits.check(limit=100_000, window_ms=DAY_MS)
    looks = []
    for _ in range(40):
        limits.clock.now += 0.2
        looks.append(limits.local(limit=100_000, window_ms=DAY_MS, peek=True))
        await asyncio.sleep(0.001)

    assert None not in looks
    assert sum(command[0] == "MGET" for command in limits.store.commands) < 20


async def test_busy_clients_are_looked_at_together(limits: Limits) -> None:
    names = [f"c{number}" for number in range(10)]

    async def both(name: str) -> None:
        # The second finds what the first was granted beyond its own.
        for _ in range(2):
            await limits.check(client_id=name, limit=100_000, window_ms=DAY_MS)

    await asyncio.gather(*map(both, names))
    await limits.check(client_id="seldom", limit=100_000, window_ms=DAY_MS)
    before = len(limits.store.commands)
    for _ in range(4):
        limits.clock.now += 0.3
        for name in names:
            local = limits.local(client_id=name, limit=100_000, window_ms=DAY_MS)
            assert local is not None
        await asyncio.sleep(0.001)

    looks = limits.store.commands[before:]
    assert [(look[0], len(look)) for look in looks] == [("MGET", 12), ("MGET", 11)]
