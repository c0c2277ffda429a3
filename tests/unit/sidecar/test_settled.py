"""Work that must come to its end: neither a caller who leaves nor a deadline stops it."""

import asyncio
import gc

import pytest

from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import DeadlineExceeded, EngineUnavailable
from plan2_sidecar.settled import settled


class Work:
    """Waits to be let go, and remembers that it came to its end."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.done = asyncio.Event()

    async def __call__(self) -> str:
        await self.go.wait()
        self.done.set()
        return "done"


async def test_the_result_is_the_works() -> None:
    work = Work()
    work.go.set()

    assert await settled(work(), Deadline.after(5)) == "done"


async def test_a_caller_who_leaves_does_not_stop_it() -> None:
    work = Work()
    caller = asyncio.create_task(settled(work(), Deadline.after(5)))
    await asyncio.sleep(0)

    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    gc.collect()
    work.go.set()

    await asyncio.wait_for(work.done.wait(), 30)


async def test_a_deadline_answers_the_caller_and_does_not_stop_it() -> None:
    work = Work()

    with pytest.raises(DeadlineExceeded):
        await settled(work(), Deadline.after(0.01))
    work.go.set()

    await asyncio.wait_for(work.done.wait(), 30)


async def test_a_failure_is_the_callers() -> None:
    async def fails() -> None:
        raise EngineUnavailable("away")

    with pytest.raises(EngineUnavailable):
        await settled(fails(), Deadline.after(5))
