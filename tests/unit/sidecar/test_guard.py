"""The guard: what an outcome says about an engine, and how many calls it admits."""

import asyncio

import pytest

from fixtures.fix_clock import HandClock
from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import (
    BreakerOpen,
    BulkheadFull,
    Conflict,
    DeadlineExceeded,
    EngineAuthFailed,
    EngineUnavailable,
    ParameterMismatch,
    Problem,
    QueryRejected,
    StoreFull,
)
from plan2_sidecar.guard import Guard
from plan2_sidecar.guard.breaker import State


@pytest.fixture
def guard(clock: HandClock) -> Guard:
    return Guard(Engine.POSTGRESQL, 2, clock)


async def answer() -> str:
    return "answer"


async def fail(guard: Guard, problem: Problem, times: int) -> None:
    async def call() -> None:
        raise problem

    for _ in range(times):
        with pytest.raises(type(problem)):
            await guard.run(call, Deadline.after(5))


@pytest.mark.parametrize(
    "problem",
    [QueryRejected("no"), Conflict("no"), ParameterMismatch("no"), StoreFull("no")],
    ids=lambda problem: problem.code,
)
async def test_a_rejected_query_is_not_the_engines_fault(guard: Guard, problem: Problem) -> None:
    await fail(guard, problem, 10)

    assert await guard.run(answer, Deadline.after(5)) == "answer"


@pytest.mark.parametrize(
    "problem", [EngineUnavailable("no"), EngineAuthFailed("no")], ids=lambda problem: problem.code
)
async def test_an_engine_that_keeps_failing_is_left_alone(guard: Guard, problem: Problem) -> None:
    await fail(guard, problem, 5)

    with pytest.raises(BreakerOpen):
        await guard.run(answer, Deadline.after(5))


async def test_every_problem_names_the_engine(guard: Guard) -> None:
    problem = QueryRejected("no")
    await fail(guard, problem, 1)

    assert problem.database is Engine.POSTGRESQL


async def test_a_caller_in_a_hurry_says_nothing_about_the_engine(guard: Guard) -> None:
    await fail(guard, DeadlineExceeded("no"), 10)

    assert guard.breaker.state is State.CLOSED


async def test_deadlines_that_gave_the_engine_time_do(guard: Guard, clock: HandClock) -> None:
    async def slow() -> None:
        clock.now += 0.5
        raise DeadlineExceeded("no")

    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            await guard.run(slow, Deadline.after(5))

    assert guard.breaker.state is State.OPEN


async def test_a_call_that_ignores_its_deadline_is_ended(guard: Guard) -> None:
    with pytest.raises(DeadlineExceeded):
        await guard.run(lambda: asyncio.sleep(60), Deadline.after(0.01))

    assert guard.bulkhead.in_use == 0


async def test_one_call_too_many_waits_a_little_and_is_refused(guard: Guard) -> None:
    over = asyncio.Event()
    slow = [asyncio.create_task(guard.run(over.wait, Deadline.after(5))) for _ in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(BulkheadFull) as refusal:
        await guard.run(answer, Deadline.after(0.2))

    assert refusal.value.retry_after_ms == 100
    assert guard.breaker.state is State.CLOSED
    over.set()
    await asyncio.gather(*slow)
    assert guard.bulkhead.in_use == 0


async def test_a_place_that_becomes_free_goes_to_who_waits(guard: Guard) -> None:
    over = asyncio.Event()
    slow = [asyncio.create_task(guard.run(over.wait, Deadline.after(5))) for _ in range(2)]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(guard.run(answer, Deadline.after(5)))
    await asyncio.sleep(0)

    over.set()

    assert await waiting == "answer"
    await asyncio.gather(*slow)
    assert guard.bulkhead.in_use == 0


async def test_a_caller_who_leaves_while_waiting_takes_no_place(guard: Guard) -> None:
    over = asyncio.Event()
    slow = [asyncio.create_task(guard.run(over.wait, Deadline.after(5))) for _ in range(2)]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(guard.run(answer, Deadline.after(5)))
    await asyncio.sleep(0)

    waiting.cancel()
    over.set()
    await asyncio.gather(*slow)

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert guard.bulkhead.in_use == 0


async def test_a_caller_who_leaves_frees_the_place_and_the_probe(
    guard: Guard, clock: HandClock
) -> None:
    await fail(guard, EngineUnavailable("no"), 5)
    clock.now += 2.0
    probing = asyncio.create_task(guard.run(lambda: asyncio.sleep(60), Deadline.after(60)))
    await asyncio.sleep(0)

    probing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probing

    assert guard.bulkhead.in_use == 0
    assert await guard.run(answer, Deadline.after(5)) == "answer"


async def test_commands_on_a_shared_connection_take_no_place_in_the_pool(guard: Guard) -> None:
    release = asyncio.Event()

    async def wait() -> str:
        await release.wait()
        return "answer"

    many = [asyncio.create_task(guard.run(wait, Deadline.after(5), shared=True)) for _ in range(50)]
    await asyncio.sleep(0)

    assert await guard.run(answer, Deadline.after(5)) == "answer"
    release.set()
    assert await asyncio.gather(*many) == ["answer"] * 50
