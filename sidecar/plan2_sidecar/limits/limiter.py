"""The limiter: what can be said here and now, what the store has to say, and what without it.

A fixed window is decided from leases (`lease`), the other algorithms by the store on every call.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import BulkheadFull, DeadlineExceeded, Problem, Unavailable
from plan2_sidecar.limits import scripts
from plan2_sidecar.limits.clients import (
    GENERATION_MS,
    STALE_SECONDS,
    TRUSTED_SECONDS,
    Client,
    Clients,
    counter_key,
    generation_key,
)
from plan2_sidecar.limits.fallback import Fallback
from plan2_sidecar.limits.lease import Grant, Lease
from plan2_sidecar.limits.line import BUSY_SECONDS, Line, Wish
from plan2_sidecar.limits.model import (
    Algorithm,
    RateLimitCheck,
    RateLimitDecision,
    Source,
    decision,
)
from plan2_sidecar.limits.presence import Sharing
from plan2_sidecar.limits.store import CounterStore
from plan2_sidecar.store import STORE_SECONDS, Script, Word

# Tokens nobody asked for in this time go back to the others.
UNUSED_SECONDS: Final = 1.0
MOST_GIVEN_BACK: Final = 100
# A sliding window is counted in buckets: so much longer than windowMs a hit may count.
BUCKETS: Final = 20


class Limiter:
    """One sidecar's. `sharing` knows how many sidecars there are."""

    def __init__(
        self, store: CounterStore, sharing: Sharing, clock: Clock = time.monotonic
    ) -> None:
        self._store = store
        self._sharing = sharing
        self._clock = clock
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
                self._look_beside(client)
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
                    return await self._wait_in_line(check)
                return await self._ask_each_time(check, deadline)
        except (Unavailable, DeadlineExceeded):
            return self._without_store(check)

    async def reset(self, client_id: str, deadline: Deadline) -> None:
        """Give the client new counters, all of them empty; raises Problem."""
        generation = secrets.token_hex(6)
        client = self._clients.get(client_id)
        key = generation_key(client_id)
        await self._store.ask("SET", key, generation, "PX", GENERATION_MS, deadline=deadline)
        client.learn(generation, self._clock())

    async def look(self) -> None:
        """Once a second: give back what nobody uses, forget what is over."""
        now = self._clock()
        await self._give_back(before=now - UNUSED_SECONDS, most=MOST_GIVEN_BACK)
        self._clients.drop_idle(now)

    async def close(self) -> None:
        """Give back what is left, and ask no more."""
        await self._give_back(before=self._clock() + 1, most=len(self._held))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _wait_in_line(self, check: RateLimitCheck) -> RateLimitDecision:
        client = self._clients.get(check.client_id)
        lease = client.lease(check.window_ms)
        line = lease.line
        if line is None:

            async def ask(wish: Wish) -> tuple[float, Grant]:
                words = [*wish, self._sharing.sidecars, check.window_ms]
                deadline = Deadline.after(STORE_SECONDS, self._clock)
                sent, reply = await self._count(client, check, scripts.GRANT, words, deadline)
                self._held[lease] = client, check.window_ms
                return sent, Grant.of(reply)

            line = Line(lease, ask, self._clock)
            self._keep(line.task)
        return await line.wait(check)

    async def _ask_each_time(self, check: RateLimitCheck, deadline: Deadline) -> RateLimitDecision:
        client = self._clients.get(check.client_id)
        words: list[Word] = [check.limit, check.needs, check.takes, check.window_ms]
        script = scripts.GCRA
        if check.algorithm is Algorithm.SLIDING_WINDOW:
            script = scripts.SLIDING_WINDOW
            words.append(-(-check.window_ms // BUCKETS))
        while True:
            try:
                _, reply = await self._count(client, check, script, words, deadline)
                break
            except BulkheadFull:
                # We are busy, which says nothing about the store.
                await asyncio.sleep(BUSY_SECONDS)
        allowed, counted, reset_ms, retry_ms = reply
        if check.algorithm is Algorithm.SLIDING_WINDOW:
            counted = check.limit - counted
        return decision(
            check,
            allowed=bool(allowed),
            remaining=counted,
            reset_ms=reset_ms,
            retry_ms=retry_ms,
            source=Source.STORE,
        )

    async def _count(
        self,
        client: Client,
        check: RateLimitCheck,
        script: Script,
        words: Sequence[Word],
        deadline: Deadline,
    ) -> tuple[float, Any]:
        """The reply of a script on the counter of the present generation, and when it was sent.

        A generation that may have changed is asked for in the same breath; a count in one that
        was over is of no account, and the next goes to the right one.
        """
        while True:
            generation = client.generation
            key = counter_key(check.algorithm, check.window_ms, client.client_id, generation)
            sent = self._clock()
            call = self._store.run(script, key, words, deadline)
            if sent - client.read_at < TRUSTED_SECONDS:
                reply = await call
            else:
                both = await asyncio.gather(
                    call, self._read_generation(client, deadline), return_exceptions=True
                )
                for outcome in both:
                    if isinstance(outcome, BaseException):
                        raise outcome
                reply = both[0]
            if client.generation == generation:
                return sent, reply

    async def _read_generation(self, client: Client, deadline: Deadline) -> None:
        asked_at = self._clock()
        found = await self._store.ask("GET", generation_key(client.client_id), deadline=deadline)
        client.learn("" if found is None else found.decode(), asked_at)

    def _look_beside(self, client: Client) -> None:
        async def look() -> None:
            try:
                await self._read_generation(client, Deadline.after(STORE_SECONDS, self._clock))
            except Problem:
                # The next call asks itself, and finds out the same.
                return
            finally:
                client.looking = False

        client.looking = True
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

    async def _give_back(self, before: float, most: int) -> None:
        now = self._clock()
        returns = []
        for lease, (client, window_ms) in list(self._held.items()):
            if now >= lease.ends or (not lease.tokens and lease.line is None):
                del self._held[lease]
            elif lease.tokens and lease.line is None and lease.spent_at < before:
                del self._held[lease]
                returns.append(self._return(client, window_ms, lease))
                if len(returns) >= most:
                    break
        await asyncio.gather(*returns)

    async def _return(self, client: Client, window_ms: int, lease: Lease) -> None:
        """Give back all tokens of a lease. They are forgotten first: a lost reply loses them."""
        key = counter_key(Algorithm.FIXED_WINDOW, window_ms, client.client_id, client.generation)
        window, tokens = lease.window, lease.forget()
        deadline = Deadline.after(STORE_SECONDS, self._clock)
        try:
            await self._store.run(scripts.GIVE_BACK, key, [tokens, window], deadline)
        except Problem:
            # They stay unspent until the window's end.
            return

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Tasks of which nobody holds a reference may be collected before they end."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
