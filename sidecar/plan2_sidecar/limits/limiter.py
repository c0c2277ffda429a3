"""The limiter: what can be said here and now, what the store has to say, and what without it.

A fixed window is decided from leases (`lease`), the other algorithms by the store on every call.
"""

import asyncio
import time
from collections.abc import Awaitable
from typing import Final

from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import BulkheadFull, DeadlineExceeded, Problem, Unavailable
from plan2_sidecar.limits import scripts
from plan2_sidecar.limits.clients import (
    MOST_LOOKED_AT,
    SOON_STALE_SECONDS,
    STALE_SECONDS,
    TRUSTED_SECONDS,
    Client,
    Clients,
)
from plan2_sidecar.limits.counters import Counters, LeaseCounter
from plan2_sidecar.limits.fallback import Fallback
from plan2_sidecar.limits.lease import Lease
from plan2_sidecar.limits.line import BUSY_SECONDS, Line
from plan2_sidecar.limits.model import (
    Algorithm,
    RateLimitCheck,
    RateLimitDecision,
    Source,
    decision,
)
from plan2_sidecar.limits.presence import Sharing
from plan2_sidecar.limits.store import CounterStore
from plan2_sidecar.limits.waiting import Told, Waiting
from plan2_sidecar.store import STORE_SECONDS, Word

UNUSED_SECONDS: Final = 1.0
MOST_GIVEN_BACK: Final = 100
# A sliding window is counted in buckets: so much longer than windowMs a hit may count.
BUCKETS: Final = 20


class Limiter:
    """One sidecar's. `sharing` knows how many sidecars there are.

    Tokens that nobody asked for in `unused_seconds` go back to the others.
    """

    def __init__(
        self,
        store: CounterStore,
        sharing: Sharing,
        clock: Clock = time.monotonic,
        *,
        unused_seconds: float = UNUSED_SECONDS,
    ) -> None:
        self._sharing = sharing
        self._unused_seconds = unused_seconds
        self._clock = clock
        self._counters = Counters(store, clock)
        self._clients = Clients()
        self._fallback = Fallback(clock)
        # Leases that may have tokens left over.
        self._held: dict[Lease, tuple[Client, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def try_local(self, check: RateLimitCheck) -> RateLimitDecision | None:
        """The decision when it takes no store; None when `check` has to be awaited."""
        if check.algorithm is not Algorithm.FIXED_WINDOW:
            return None
        client = self._clients.known(check.client_id)
        if client is None:
            return None
        lease = client.leases.get(check.window_ms)
        if lease is None or lease.line is not None:
            return None
        now = self._clock()
        age = now - client.read_at
        if age >= STALE_SECONDS:
            if age >= TRUSTED_SECONDS:
                return None
            if not client.looking:
                self._look_beside(client, now)
        return lease.decide(check, now)

    async def check(self, check: RateLimitCheck, deadline: Deadline) -> RateLimitDecision:
        """The decision; without a store in time, what `onStoreFailure` says.

        Raises EngineNotConfigured, or what the store has against the question.
        """
        found = self.try_local(check)
        if found is not None:
            return found
        self._sharing.join()
        try:
            async with deadline.enforced():
                if check.algorithm is Algorithm.FIXED_WINDOW:
                    return await self._line(check).wait(check)
                return await self._ask_each_time(check, deadline)
        except (Unavailable, DeadlineExceeded):
            return self._without_store(check)

    def begin(self, check: RateLimitCheck, deadline: Deadline, told: Told) -> Waiting | None:
        """`check` without a task, for what `try_local` did not decide; it may `leave`.

        `told` gets the decision, or what `check` would raise. None where it has to be awaited:
        nothing was done then.
        """
        seconds = deadline.at - deadline.clock()
        if check.algorithm is not Algorithm.FIXED_WINDOW or seconds <= 0:
            return None

        def over(outcome: RateLimitDecision | Exception) -> None:
            if isinstance(outcome, Unavailable | DeadlineExceeded):
                outcome = self._without_store(check)
            told(outcome)

        self._sharing.join()
        waiting = Waiting(seconds, over)
        self._line(check).add(check, waiting)
        return waiting

    async def reset(self, client_id: str, deadline: Deadline) -> None:
        """Give the client new counters, all of them empty; raises Problem."""
        await self._counters.new_generation(self._clients.get(client_id), deadline)

    async def look(self) -> None:
        """Once a second: give back what nobody uses, forget what is over."""
        now = self._clock()
        await self._give_back(unspent_since=now - self._unused_seconds, most=MOST_GIVEN_BACK)
        self._clients.drop_idle(now)

    async def close(self) -> None:
        """Give back what is left, and ask no more."""
        await self._give_back(unspent_since=self._clock(), most=len(self._held))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _line(self, check: RateLimitCheck) -> Line:
        """The line of those who wait for the same lease."""
        client = self._clients.get(check.client_id)
        lease = client.lease(check.window_ms)
        line = lease.line
        if line is None:
            counter = LeaseCounter(
                self._counters, client, check.window_ms, self._sharing, self._clock
            )
            line = Line(lease, counter, self._clock)
            self._keep(line.task)
            self._held[lease] = client, check.window_ms
        return line

    async def _ask_each_time(self, check: RateLimitCheck, deadline: Deadline) -> RateLimitDecision:
        client = self._clients.get(check.client_id)
        words: list[Word] = [check.limit, check.needs, check.takes, check.window_ms]
        sliding = check.algorithm is Algorithm.SLIDING_WINDOW
        if sliding:
            words.append(-(-check.window_ms // BUCKETS))
        script = scripts.SLIDING_WINDOW if sliding else scripts.GCRA
        while True:
            try:
                _, reply = await self._counters.count(
                    client, check.algorithm, check.window_ms, script, words, deadline
                )
                break
            except BulkheadFull:
                # We are busy, which says nothing about the store.
                await asyncio.sleep(BUSY_SECONDS)
        allowed, counted, reset_ms, retry_ms = reply
        return decision(
            check,
            allowed=bool(allowed),
            remaining=check.limit - counted if sliding else counted,
            reset_ms=reset_ms,
            retry_ms=retry_ms,
            source=Source.STORE,
        )

    def _look_beside(self, client: Client, now: float) -> None:
        """Learn the client's generation while its calls go on, and those of others like it."""
        looked_at = [
            each
            for each in self._clients.latest(MOST_LOOKED_AT)
            if now - each.read_at >= SOON_STALE_SECONDS
            and not each.looking
            and (each is client or each.busy(since=now - TRUSTED_SECONDS))
        ]

        async def look() -> None:
            deadline = Deadline.after(STORE_SECONDS, self._clock)
            try:
                await self._counters.read_generations(looked_at, deadline)
            except Problem:
                # The next call asks itself, and finds out the same.
                return
            finally:
                for each in looked_at:
                    each.looking = False

        for each in looked_at:
            each.looking = True
        self._keep(asyncio.create_task(look()))

    def _without_store(self, check: RateLimitCheck) -> RateLimitDecision:
        client = self._clients.known(check.client_id)
        if client is not None and check.algorithm is Algorithm.FIXED_WINDOW:
            lease = client.leases.get(check.window_ms)
            # What the store granted or denied until the window's end holds without it, too.
            found = None if lease is None else lease.decide(check, self._clock())
            if found is not None:
                return found
        return self._fallback.decide(check, self._sharing.sidecars)

    async def _give_back(self, unspent_since: float, most: int) -> None:
        now = self._clock()
        returns: list[Awaitable[None]] = []
        for lease, (client, window_ms) in list(self._held.items()):
            if lease.line is not None or len(returns) >= most:
                continue
            if not lease.tokens or now >= lease.ends:
                del self._held[lease]
            elif lease.spent_at <= unspent_since:
                del self._held[lease]
                returns.append(self._counters.give_back(client, window_ms, lease))
        await asyncio.gather(*returns)

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Tasks of which nobody holds a reference may be collected before they end."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
