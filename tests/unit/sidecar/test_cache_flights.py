"""Many who want one thing cause one call."""

import asyncio

import pytest

from fixtures.fix_clock import HandClock
from plan2_sidecar.cache.flights import Flights
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import DeadlineExceeded, EngineUnavailable


class Work:
    """Counts its calls; each ends when the test says so."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0
        self.release = asyncio.Event()

    async def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number


def soon() -> Deadline:
    return Deadline.after(10.0)


async def started(work: Work, calls: int = 1) -> None:
    for _ in range(100):
        if work.calls >= calls:
            return
        await asyncio.sleep(0)
    pytest.fail("the call did not start")


async def test_all_who_come_meanwhile_get_one_answer() -> None:
    flights, work = Flights(), Work()
    waiting = [asyncio.create_task(flights.join("k", work, soon())) for _ in range(100)]
    await started(work)
    work.release.set()

    assert await asyncio.gather(*waiting) == [1] * 100
    assert await flights.join("k", work, soon()) == 2


async def test_all_get_the_one_failure() -> None:
    flights = Flights()
    calls = 0

    async def fail() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        raise EngineUnavailable("down")

    outcomes = await asyncio.gather(
        *(flights.join("k", fail, soon()) for _ in range(10)), return_exceptions=True
    )

    assert calls == 1
    assert all(isinstance(outcome, EngineUnavailable) for outcome in outcomes)


async def test_who_leaves_does_not_end_the_call_for_the_others() -> None:
    flights, work = Flights(), Work()
    leaving = asyncio.create_task(flights.join("k", work, soon()))
    staying = asyncio.create_task(flights.join("k", work, soon()))
    await started(work)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    work.release.set()

    assert await staying == 1
    assert work.cancelled == 0


async def test_the_call_ends_when_the_last_one_leaves() -> None:
    flights, work = Flights(), Work()
    waiting = [asyncio.create_task(flights.join("k", work, soon())) for _ in range(3)]
    await started(work)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.sleep(0)

    assert work.cancelled == 1


async def test_who_has_more_time_begins_anew() -> None:
    flights = Flights()
    calls = 0

    async def hurried() -> str:
        raise DeadlineExceeded("the time of the one who began")

    async def slow() -> str:
        nonlocal calls
        calls += 1
        return "answer"

    async def first() -> str:
        await asyncio.sleep(0.01)
        return await hurried()

    outcomes = await asyncio.gather(
        flights.join("k", first, soon()),
        flights.join("k", slow, soon()),
        flights.join("k", slow, soon()),
        return_exceptions=True,
    )

    assert isinstance(outcomes[0], DeadlineExceeded)
    assert outcomes[1:] == ["answer", "answer"]
    assert calls == 1


async def test_nobody_waits_longer_than_his_own_time(clock: HandClock) -> None:
    flights, work = Flights(), Work()
    staying = asyncio.create_task(flights.join("k", work, soon()))
    await started(work)

    with pytest.raises(DeadlineExceeded):
        await flights.join("k", work, Deadline.after(0.01))

    work.release.set()
    assert await staying == 1


async def test_who_comes_after_a_write_gets_a_newer_answer() -> None:
    flights, work = Flights(), Work()
    before = asyncio.create_task(flights.join("k", work, soon()))
    await started(work)
    flights.forget("k")
    after = asyncio.create_task(flights.join("k", work, soon()))
    await started(work, 2)
    work.release.set()

    assert (await before, await after) == (1, 2)


async def test_a_call_behind_the_callers_back_goes_on_alone() -> None:
    flights, work = Flights(), Work()
    flights.begin("k", work)
    flights.begin("k", work)
    joined = asyncio.create_task(flights.join("k", work, soon()))
    await started(work)
    joined.cancel()
    await asyncio.gather(joined, return_exceptions=True)
    again = asyncio.create_task(flights.join("k", work, soon()))
    await asyncio.sleep(0)
    work.release.set()

    assert await again == 1
    assert (work.calls, work.cancelled) == (1, 0)
