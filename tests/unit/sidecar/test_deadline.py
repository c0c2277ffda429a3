"""Deadlines: absolute, and kept."""

import asyncio

import pytest

from fixtures.fix_clock import HandClock
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import DeadlineExceeded


def test_what_remains_shrinks_with_the_clock(clock: HandClock) -> None:
    deadline = Deadline.after(5.0, clock)
    clock.now += 2.0

    assert deadline.remaining() == 3.0


def test_nothing_remaining_is_an_error_and_never_a_zero(clock: HandClock) -> None:
    deadline = Deadline.after(5.0, clock)
    clock.now += 5.0

    with pytest.raises(DeadlineExceeded):
        deadline.remaining()


def test_a_wait_of_its_own_never_reaches_past_the_deadline(clock: HandClock) -> None:
    deadline = Deadline.after(5.0, clock)

    assert deadline.earlier(1.0).remaining() == 1.0
    assert deadline.earlier(9.0).remaining() == 5.0


async def test_work_is_cancelled_at_the_deadline() -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(DeadlineExceeded):
        async with Deadline.after(0.02).enforced():
            await work()

    assert cancelled.is_set()


async def test_a_timeout_of_the_work_itself_stays_what_it_is() -> None:
    with pytest.raises(TimeoutError, match="its own"):
        async with Deadline.after(60).enforced():
            raise TimeoutError("its own")


async def test_the_sooner_of_two_deadlines_that_was_set_later_is_kept() -> None:
    async def work(seconds: float) -> None:
        async with Deadline.after(seconds).enforced():
            await asyncio.sleep(60)

    ended: list[str] = []

    async def noted(name: str, seconds: float) -> None:
        with pytest.raises(DeadlineExceeded):
            await work(seconds)
        ended.append(name)

    async with asyncio.timeout(10):
        await asyncio.gather(noted("late", 0.1), noted("soon", 0.02), noted("between", 0.06))

    assert ended == ["soon", "between", "late"]


async def test_a_deadline_holds_after_an_earlier_one_was_not_needed() -> None:
    with Deadline.after(0.01).enforced():
        pass

    with pytest.raises(DeadlineExceeded), Deadline.after(0.03).enforced():
        await asyncio.wait_for(asyncio.Event().wait(), 10)


async def test_slack_comes_on_top_of_what_remains(clock: HandClock) -> None:
    over = Deadline.after(1.0, clock)
    clock.now += 1.05

    assert over.remaining(0.1) == pytest.approx(0.05)
    with pytest.raises(DeadlineExceeded), over.enforced():
        await asyncio.sleep(0)


def test_every_loop_keeps_its_own() -> None:
    async def late() -> None:
        with pytest.raises(DeadlineExceeded), Deadline.after(0.01).enforced():
            await asyncio.sleep(60)

    for _ in range(2):
        asyncio.run(asyncio.wait_for(late(), 10))
