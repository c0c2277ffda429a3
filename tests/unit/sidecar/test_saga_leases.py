"""Leases are renewed while the work lasts, and the work ends with a lease that is lost."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from plan2_sidecar.errors import BulkheadFull
from plan2_sidecar.sagas.leases import Leases
from plan2_sidecar.sagas.log import Claim

LEASE_MS = 40


@dataclass
class Log:
    """Renews what it is told to; `until` moves on with each renewal."""

    clock: "Clock"
    kept: bool = True
    refusals: int = 0
    renewals: int = 0
    lease_ms: int = LEASE_MS
    renewed: asyncio.Event = field(default_factory=asyncio.Event)

    async def renew(self, claims: Iterable[Claim]) -> set[str]:
        if self.refusals:
            self.refusals -= 1
            raise BulkheadFull("full")
        self.renewals += 1
        self.renewed.set()
        for claim in claims:
            claim.until = self.clock() + 1.0
        return {claim.id for claim in claims} if self.kept else set()


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def work() -> asyncio.Event:
    return asyncio.Event()


async def test_a_lease_is_renewed_until_its_work_is_done(clock: Clock) -> None:
    log, done = Log(clock), work()
    leases = Leases(log, clock)  # type: ignore[arg-type]  # a stand-in

    async def busy() -> None:
        await done.wait()

    task = leases.start(Claim("a", 1, 1.0), busy())
    await asyncio.wait_for(log.renewed.wait(), 30)
    done.set()
    await asyncio.wait_for(task, 30)

    assert log.renewals >= 1
    assert len(leases) == 0
    assert leases.task("a") is None


async def test_work_whose_lease_another_has_is_stopped(clock: Clock) -> None:
    log = Log(clock, kept=False)
    leases = Leases(log, clock)  # type: ignore[arg-type]  # a stand-in

    task = leases.start(Claim("a", 1, 1.0), asyncio.sleep(60))

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)


async def test_a_renewal_that_found_no_place_is_tried_again(clock: Clock) -> None:
    log, done = Log(clock, refusals=3), work()
    leases = Leases(log, clock)  # type: ignore[arg-type]  # a stand-in

    async def busy() -> None:
        await done.wait()

    task = leases.start(Claim("a", 1, 1.0), busy())
    await asyncio.wait_for(log.renewed.wait(), 30)
    done.set()

    await asyncio.wait_for(task, 30)


async def test_work_is_stopped_when_its_lease_ends_unrenewed(clock: Clock) -> None:
    log = Log(clock, refusals=1000)
    leases = Leases(log, clock)  # type: ignore[arg-type]  # a stand-in
    task = leases.start(Claim("a", 1, 1.0), asyncio.sleep(60))
    await asyncio.sleep(LEASE_MS / 1000)
    assert not task.done()

    clock.now = 1.0

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)


async def test_an_end_lets_go_of_everything(clock: Clock) -> None:
    log = Log(clock)
    leases = Leases(log, clock)  # type: ignore[arg-type]  # a stand-in
    tasks = [leases.start(Claim(name, 1, 1.0), asyncio.sleep(60)) for name in "ab"]

    claims = await leases.close()

    assert sorted(claim.id for claim in claims) == ["a", "b"]
    assert all(task.cancelled() for task in tasks)
