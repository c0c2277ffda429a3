"""Those who wait for the same window's next grant: one call to the store for all, in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from plan2_sidecar.deadline import Clock
from plan2_sidecar.errors import BulkheadFull
from plan2_sidecar.limits.lease import Grant, Lease
from plan2_sidecar.limits.model import RateLimitCheck, RateLimitDecision

BUSY_SECONDS: Final = 0.02


class Wish(NamedTuple):
    """The arguments of `scripts.GRANT` that depend on who waits."""

    limit: int
    wanted: int
    least: int
    demand: int


class _Waiter(NamedTuple):
    check: RateLimitCheck
    answer: asyncio.Future[RateLimitDecision]


Ask = Callable[[Wish], Awaitable[tuple[float, Grant]]]


class Line:
    """Waits for one lease; it is the lease's `line` as long as anybody waits.

    `ask` sends a wish to the store; it answers with the moment it was sent and the reply.
    """

    def __init__(self, lease: Lease, ask: Ask, clock: Clock) -> None:
        self._lease = lease
        self._ask = ask
        self._clock = clock
        self._waiting: deque[_Waiter] = deque()
        lease.line = self
        self.task = asyncio.create_task(self._serve())
        self.task.add_done_callback(self._tell)

    async def wait(self, check: RateLimitCheck) -> RateLimitDecision:
        """The decision, after those who came before; raises what asking the store raises."""
        answer: asyncio.Future[RateLimitDecision] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiter(check, answer))
        return await answer

    async def _serve(self) -> None:
        try:
            while self._skim():
                await self._grant()
        finally:
            self._lease.line = None

    def _skim(self) -> bool:
        """Answer those in front who need no store; whether anybody is left."""
        while self._waiting:
            check, answer = self._waiting[0]
            if not answer.done():
                decision = self._lease.decide(check, self._clock())
                if decision is None:
                    return True
                answer.set_result(decision)
            self._waiting.popleft()
        return False

    async def _grant(self) -> None:
        limit = self._waiting[0].check.limit
        batch = [waiter for waiter in self._waiting if waiter.check.limit == limit]
        costs = [check.takes for check, answer in batch if check.takes and not answer.done()]
        wanted = sum(costs)
        exact = all(waiter.check.exact for waiter in batch)
        demand = 0 if exact else self._lease.demand(wanted, self._clock())
        try:
            sent, grant = await self._ask(Wish(limit, wanted, min(costs, default=0), demand))
        except BulkheadFull:
            # We are busy, which says nothing about the store.
            await asyncio.sleep(BUSY_SECONDS)
            return
        self._lease.take(grant, sent, self._clock())
        self._settle(batch)

    def _settle(self, batch: list[_Waiter]) -> None:
        answered = set()
        for waiter in batch:
            if not waiter.answer.done():
                decision = self._lease.settle(waiter.check, self._clock())
                if decision is None:
                    continue
                waiter.answer.set_result(decision)
            answered.add(id(waiter))
        self._waiting = deque(waiter for waiter in self._waiting if id(waiter) not in answered)

    def _tell(self, task: asyncio.Task[None]) -> None:
        """Whoever still waits hears how it ended."""
        error = None if task.cancelled() else task.exception()
        for _, answer in self._waiting:
            if answer.done():
                continue
            if error is None:
                answer.cancel()
            else:
                answer.set_exception(error)
