"""Work that is begun and must come to its end, whatever becomes of the call that began it.

A write to the truth is followed by telling the caches. A caller who hangs up in between, or
whose deadline passes, must not leave them with what was there before.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from plan2_sidecar.deadline import Deadline

T = TypeVar("T")

# What telling the caches may take, counted from the write.
SETTLE_SECONDS: Final = 2.0

_running: set[asyncio.Task[Any]] = set()


async def settled(work: Coroutine[Any, Any, T], deadline: Deadline) -> T:
    """The result, or DeadlineExceeded; `work` goes on in either case, and when cancelled."""
    task = asyncio.get_running_loop().create_task(work)
    _running.add(task)
    task.add_done_callback(_over)
    async with deadline.enforced():
        return await asyncio.shield(task)


def _over(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled():
        # Seen here where its caller has gone.
        task.exception()
