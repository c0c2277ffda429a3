"""Those who wait for the same window's next grant: one call to the store for all, in order."""

import asyncio
from collections import deque
from typing import Final, NamedTuple, Protocol

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


class Answer(Protocol):
    """Who waits for a decision: a future, or what is told as one."""

    def done(self) -> bool:
        """Nobody does any more."""
        ...

    def set_result(self, result: RateLimitDecision, /) -> None:
        """The decision."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """What asking the store raised."""
        ...

    def cancel(self) -> object:
        """There will be none."""
        ...


class _Waiter(NamedTuple):
    check: RateLimitCheck
    answer: Answer


class Counter(Protocol):
    """The store's side of one lease; both calls raise Problem."""

    @property
    def trusted(self) -> bool:
        """Whether what is known of the client was looked at lately."""
        ...

    async def renew(self) -> None:
        """Look, so that it is trusted again."""
        ...

    async def grant(self, wish: Wish) -> tuple[float, Grant]:
        """The reply to the wish, and the moment at which it was sent."""
        ...


class Line:
    """Waits for one lease; it is the lease's `line` as long as anybody waits."""

    def __init__(self, lease: Lease, counter: Counter, clock: Clock) -> None:
        self._lease = lease
        self._counter = counter
        self._clock = clock
        self._waiting: deque[_Waiter] = deque()
        lease.line = self
        self.task = asyncio.create_task(self._serve())
        self.task.add_done_callback(self._tell)

    async def wait(self, check: RateLimitCheck) -> RateLimitDecision:
        """The decision, after those who came before; raises what asking the store raises."""
        answer: asyncio.Future[RateLimitDecision] = asyncio.get_running_loop().create_future()
        self.add(check, answer)
        return await answer

    def add(self, check: RateLimitCheck, answer: Answer) -> None:
        """Have `answer` told the decision, after those who came before."""
        self._waiting.append(_Waiter(check, answer))

    async def _serve(self) -> None:
        try:
            while (check := self._front()) is not None:
                try:
                    if not self._lease.knows(check, self._clock()):
                        await self._grant(check.limit)
                    elif self._counter.trusted:
                        self._answer_front()
                    else:
                        await self._counter.renew()
                except BulkheadFull:
                    # We are busy, which says nothing about the store.
                    await asyncio.sleep(BUSY_SECONDS)
        finally:
            self._lease.line = None

    def _front(self) -> RateLimitCheck | None:
        """What the first who still waits has asked; None when nobody does."""
        while self._waiting:
            check, answer = self._waiting[0]
            if not answer.done():
                return check
            self._waiting.popleft()
        return None

    def _answer_front(self) -> None:
        check, answer = self._waiting[0]
        decision = self._lease.decide(check, self._clock())
        if decision is not None:
            answer.set_result(decision)

    async def _grant(self, limit: int) -> None:
        batch = [waiter for waiter in self._waiting if waiter.check.limit == limit]
        costs = [check.takes for check, answer in batch if check.takes and not answer.done()]
        # Should the window be another by now, this is too little, and they are asked for again.
        held = self._lease.tokens
        wanted = max(0, sum(costs) - held)
        least = max(1, min(costs) - held) if wanted else 0
        demand = 0
        if wanted and not all(waiter.check.exact for waiter in batch):
            demand = self._lease.demand(wanted, self._clock())
        wish = Wish(limit, wanted, least, demand)
        sent, grant = await self._counter.grant(wish)
        self._lease.take(grant, sent, self._clock())
        self._settle(batch)

    def _settle(self, batch: list[_Waiter]) -> None:
        now = self._clock()
        for check, answer in batch:
            if not answer.done():
                decision = self._lease.settle(check, now)
                if decision is not None:
                    answer.set_result(decision)
        self._waiting = deque(waiter for waiter in self._waiting if not waiter.answer.done())

    def _tell(self, task: asyncio.Task[None]) -> None:
        """Whoever still waits hears how it ended."""
        error = None if task.cancelled() else task.exception()
        # Who is told may ask again at once, in another line.
        for _, answer in list(self._waiting):
            if answer.done():
                continue
            if error is None:
                answer.cancel()
            else:
                answer.set_exception(error)
