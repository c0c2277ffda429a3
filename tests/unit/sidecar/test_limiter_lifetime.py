"""What the limiter gives back, forgets, and how many share a limit."""

import pytest

from fixtures.fix_clock import HandClock
from fixtures.fix_limits import CounterMemory, Limits, spend
from plan2_sidecar.errors import (
    ConnectionLost,
    EngineUnavailable,
)
from plan2_sidecar.limits import clients
from plan2_sidecar.limits.clients import Clients
from plan2_sidecar.limits.presence import Presence

DOWN = EngineUnavailable("nobody is there")
DAY_MS = 86_400_000


async def test_what_nobody_uses_goes_back_to_the_others(limits: Limits) -> None:
    other = limits.beside()
    for _ in range(20):
        limits.clock.now += 0.0001
        await limits.check(limit=200, window_ms=DAY_MS)
    held = (await limits.check(limit=200, window_ms=DAY_MS, peek=True)).remaining
    seen = (await other.check(limit=200, window_ms=DAY_MS, peek=True)).remaining
    assert held == 180
    assert seen < held

    limits.clock.now += 1.1
    await limits.limiter.look()

    assert (await other.check(limit=200, window_ms=DAY_MS, peek=True)).remaining == held
    assert sum(await spend(limits, 200, limit=200, window_ms=DAY_MS)) == 180


async def test_a_sidecar_that_ends_leaves_its_tokens_to_the_others(limits: Limits) -> None:
    other = limits.beside()
    for _ in range(20):
        limits.clock.now += 0.0001
        await limits.check(limit=200)

    await limits.limiter.close()

    assert (await other.check(limit=200, peek=True)).remaining == 180


@pytest.mark.parametrize("ran", [True, False])
async def test_tokens_whose_return_was_not_confirmed_are_not_spent(
    limits: Limits, ran: bool
) -> None:
    for _ in range(20):
        limits.clock.now += 0.0001
        await limits.check(limit=200)
    limits.clock.now += 1.1
    if ran:
        limits.store.lost = [ConnectionLost("cut")]
    else:
        limits.store.problem = DOWN

    await limits.limiter.look()
    limits.store.problem = None

    assert 20 + sum(await spend(limits, 200, limit=200)) <= 200


async def test_clients_that_are_over_are_forgotten(limits: Limits) -> None:
    for number in range(100):
        await limits.check(f"c{number}", window_ms=1000)
    known = limits.limiter._clients
    assert len(known) == 100

    limits.clock.now += 2.0
    await limits.limiter.look()

    assert len(known) == 0


def test_the_client_not_asked_about_for_longest_goes_first() -> None:
    known = Clients(most=3)
    for name in ("a", "b", "c"):
        known.get(name)
    known.get("a")
    known.get("d")

    assert known.known("b") is None
    assert known.known("a") is not None
    assert len(known) == 3


def test_a_client_has_a_bounded_number_of_windows() -> None:
    client = Clients().get("c")
    for window_ms in range(1, 1000):
        client.lease(window_ms)

    assert len(client.leases) == clients.MOST_WINDOWS_PER_CLIENT


async def test_a_limiter_is_counted_once_it_was_asked(limits: Limits) -> None:
    assert limits.crowd.joined == 0
    await limits.check()
    assert limits.crowd.joined > 0


async def test_sidecars_are_counted_by_their_heartbeats(clock: HandClock) -> None:
    store = CounterMemory(clock)
    crowd = [Presence(store, clock) for _ in range(3)]
    for one in crowd:
        await one.look()
    assert store.scripts == 0, "nobody was asked for a limit yet"

    for one in crowd:
        one.join()
        await one.look()
    assert [one.sidecars for one in crowd] == [1, 2, 3]
    await crowd[0].look()
    assert store.scripts == 3, "a beat is due every five seconds"

    store.problem = DOWN
    clock.now += 6.0
    await crowd[2].look()
    assert crowd[2].sidecars == 3, "the last count stands"

    store.problem = None
    clock.now += 10.0
    await crowd[2].look()
    assert crowd[2].sidecars == 1


async def test_a_sidecar_that_ends_is_not_counted_any_more(clock: HandClock) -> None:
    store = CounterMemory(clock)
    one = Presence(store, clock)
    await one.close()
    assert not store.commands

    one.join()
    await one.look()
    await one.close()
    assert store.commands[-1][0] == "ZREM"

    store.problem = DOWN
    await one.close()
