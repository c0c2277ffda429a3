"""The work queue: one run at a time for a resource, wake-ups gathered, failures backed off."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random

import pytest

from plan2_operator.work_queue import Key, WorkQueue

KEY = Key("trading", "prices")
OTHER = Key("trading", "orders")
Run = Callable[[Key], Awaitable[float | None]]


@pytest.fixture
async def queues() -> AsyncIterator[Callable[[Run], WorkQueue]]:
    made: list[WorkQueue] = []

    def make(run: Run) -> WorkQueue:
        queue = WorkQueue(
            run,
            random=Random(1),
            gather_seconds=0.01,
            first_backoff_seconds=0.05,
            last_backoff_seconds=0.2,
        )
        made.append(queue)
        return queue

    yield make
    for queue in made:
        await queue.close()


async def test_wake_ups_that_come_together_are_one_run(
    queues: Callable[[Run], WorkQueue],
) -> None:
    runs: list[Key] = []

    async def run(key: Key) -> float:
        runs.append(key)
        return 60.0

    queue = queues(run)
    for _ in range(20):
        queue.add(KEY)
    await asyncio.sleep(0.1)

    assert runs == [KEY]
    assert queue.depth() == 0


async def test_a_wake_up_during_a_run_leads_to_one_more_run(
    queues: Callable[[Run], WorkQueue],
) -> None:
    started, go = asyncio.Event(), asyncio.Event()
    runs = 0

    async def run(key: Key) -> float:
        nonlocal runs
        runs += 1
        started.set()
        await go.wait()
        return 60.0

    queue = queues(run)
    queue.add(KEY)
    await started.wait()
    queue.add(KEY)
    queue.add(KEY)
    go.set()
    await asyncio.sleep(0.1)

    assert runs == 2


async def test_one_resource_never_runs_twice_at_a_time_and_two_run_together(
    queues: Callable[[Run], WorkQueue],
) -> None:
    running: dict[Key, int] = {KEY: 0, OTHER: 0}
    most: dict[Key, int] = {KEY: 0, OTHER: 0}
    together = 0

    async def run(key: Key) -> float:
        nonlocal together
        running[key] += 1
        most[key] = max(most[key], running[key])
        together = max(together, sum(running.values()))
        await asyncio.sleep(0.03)
        running[key] -= 1
        return 60.0

    queue = queues(run)
    for _ in range(5):
        queue.add(KEY)
        queue.add(OTHER)
        await asyncio.sleep(0.02)

    assert most == {KEY: 1, OTHER: 1}
    assert together == 2


async def test_a_resource_is_looked_at_again_when_it_said(
    queues: Callable[[Run], WorkQueue],
) -> None:
    runs = 0

    async def run(key: Key) -> float:
        nonlocal runs
        runs += 1
        return 0.03

    queues(run).add(KEY)
    await asyncio.sleep(0.25)

    assert 4 <= runs <= 9


async def test_a_failing_resource_is_tried_again_with_growing_pauses(
    queues: Callable[[Run], WorkQueue],
) -> None:
    times: list[float] = []

    async def run(key: Key) -> float:
        times.append(asyncio.get_running_loop().time())
        raise OSError("down")

    queues(run).add(KEY)
    await asyncio.sleep(0.45)

    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 2 <= len(pauses) <= 6
    assert pauses[0] < pauses[-1]


async def test_events_do_not_turn_a_failing_resource_into_a_busy_loop(
    queues: Callable[[Run], WorkQueue],
) -> None:
    runs = 0

    async def run(key: Key) -> float:
        nonlocal runs
        runs += 1
        raise OSError("down")

    queue = queues(run)
    for _ in range(30):
        queue.add(KEY)
        await asyncio.sleep(0.01)

    assert runs <= 9


async def test_a_resource_that_is_gone_is_forgotten_and_can_come_again(
    queues: Callable[[Run], WorkQueue],
) -> None:
    runs = 0

    async def run(key: Key) -> None:
        nonlocal runs
        runs += 1

    queue = queues(run)
    queue.add(KEY)
    await asyncio.sleep(0.05)
    assert queue.keys() == []
    queue.add(KEY)
    await asyncio.sleep(0.05)

    assert runs == 2


async def test_the_age_of_the_oldest_run_is_known(queues: Callable[[Run], WorkQueue]) -> None:
    async def run(key: Key) -> float:
        await asyncio.sleep(30)
        return 60.0

    queue = queues(run)
    assert queue.longest_run_seconds() == 0
    queue.add(KEY)
    await asyncio.sleep(0.1)

    assert 0.03 < queue.longest_run_seconds() < 5
