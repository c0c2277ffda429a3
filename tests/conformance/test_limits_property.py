"""A limit is kept in every window, whatever happens between the sidecars and the store.

A thousand runs on a real server: one to eight limiters with clocks of their own, on wires that
delay, cut and lose; sidecars that are killed, and that end well; windows that end meanwhile, by
the server's clock. The server itself says which windows there were (`fixtures/limit_windows.py`
checks what was admitted against them).
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fixtures.engine_server import EngineServer
from fixtures.fix_limits import Crowd
from fixtures.limit_windows import Admission, fit
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.resp import Channel
from plan2_sidecar.errors import ConnectionLost, EngineUnavailable
from plan2_sidecar.limits import scripts
from plan2_sidecar.limits.limiter import Limiter
from plan2_sidecar.limits.model import OnStoreFailure, RateLimitCheck, Source
from plan2_sidecar.store import Script, Word

RUNS = 1000
# More of them fill a core, and then what times out is the test.
AT_ONCE = 15


@dataclass
class Wire:
    """A `CounterStore` on a bad wire to a real server; notes each window it hears of."""

    channel: Channel
    chance: random.Random
    window_ms: int
    limit: int
    windows: set[int] = field(default_factory=set)
    granted: int = 0

    async def ask(self, *command: Word, deadline: Deadline) -> Any:
        await self._delay()
        reply = await self.channel.ask(*command)
        await self._delay()
        return reply

    async def run(
        self, script: Script, key: Word, arguments: Sequence[Word], deadline: Deadline
    ) -> Any:
        # What comes back late may come back into another window.
        await self._delay(late=0.5 if script is scripts.GIVE_BACK else 0.06)
        if self.chance.random() < 0.04:
            raise EngineUnavailable("it never left")
        # In one transaction, so that it is the window of this very grant.
        ask = self.channel.ask
        ask("MULTI")
        ask("EVALSHA", script.digest, "1", key, *arguments)
        ask("PEXPIRETIME", key)
        reply, end = await ask("EXEC")
        if end > 0:
            self.windows.add(end)
        if script is scripts.GRANT:
            assert reply[1] <= self.limit
            self.granted += reply[0]
        else:
            self.granted -= int(arguments[0]) * reply
        await self._delay()
        if self.chance.random() < 0.06:
            raise ConnectionLost("the reply was lost")
        return reply

    async def run_beside(
        self,
        script: Script,
        key: Word,
        arguments: Sequence[Word],
        command: Sequence[Word],
        deadline: Deadline,
    ) -> tuple[Any, Any]:
        ran, told = await asyncio.gather(
            self.run(script, key, arguments, deadline), self.ask(*command, deadline=deadline)
        )
        return ran, told

    async def _delay(self, late: float = 0.06) -> None:
        if self.chance.random() < late:
            await asyncio.sleep(self.chance.uniform(0, 1.5 * self.window_ms / 1000))
        elif self.chance.random() < 0.3:
            await asyncio.sleep(self.chance.uniform(0, 0.004))


@dataclass
class Run:
    """One seed: `sidecars` of them, until `windows` have passed."""

    seed: int
    channel: Channel
    admissions: list[Admission] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    crashes: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.window_ms = self.chance.randint(40, 120)
        self.limit = self.chance.choice((1, 3, 10, 30, 100))
        self.sidecars = self.chance.randint(1, 8)
        self.unit = self.chance.random() < 0.7
        self.wire = Wire(self.channel, self.chance, self.window_ms, self.limit)
        self.ends_at = 0.0

    async def play(self) -> None:
        """Until it is over."""
        self.ends_at = time.monotonic() + self.chance.uniform(2, 5) * self.window_ms / 1000
        await asyncio.gather(*(self._sidecar() for _ in range(self.sidecars)))

    async def _sidecar(self) -> None:
        """One place for sidecars: when one is gone, the next takes it."""
        while time.monotonic() < self.ends_at:
            offset = self.chance.uniform(-1e6, 1e6)

            def clock(offset: float = offset) -> float:
                return time.monotonic() + offset

            crowd = Crowd(self.chance.randint(1, 8))
            limiter = Limiter(self.wire, crowd, clock, unused_seconds=0.002)
            async with asyncio.TaskGroup() as callers:
                tasks = [
                    callers.create_task(self._caller(limiter, clock))
                    for _ in range(self.chance.randint(1, 3))
                ]
                tasks.append(callers.create_task(self._looker(limiter)))
                lives = self.chance.uniform(0.5, 6) * self.window_ms / 1000
                await asyncio.sleep(min(lives, max(0.0, self.ends_at - time.monotonic())))
                for task in tasks:
                    task.cancel()
            self.crashes += 1
            if self.chance.random() < 0.5:
                await limiter.close()
            else:
                # Killed: what it holds and what is on its wire is lost to it.
                for task in limiter._tasks:
                    task.cancel()

    async def _caller(self, limiter: Limiter, clock: Any) -> None:
        pause = self.chance.choice((0.0005, 0.002, 0.01))
        while True:
            check = self._check()
            deadline = Deadline.after(self.chance.choice((0.03, 0.3, 5.0)), clock)
            began = time.time() * 1000
            decided = limiter.try_local(check) or await limiter.check(check, deadline)
            if decided.allowed and check.takes:
                self.admissions.append(Admission(began, time.time() * 1000, check.cost))
            self.sources.append(decided.source)
            await asyncio.sleep(self.chance.uniform(0, 2 * pause))

    async def _looker(self, limiter: Limiter) -> None:
        """Gives back what is unused, many times in a window."""
        while True:
            await asyncio.sleep(self.chance.uniform(0, 0.02))
            await limiter.look()

    def _check(self) -> RateLimitCheck:
        dear = not self.unit and self.chance.random() < 0.3
        return RateLimitCheck(
            client_id=f"run-{self.seed}",
            window_ms=self.window_ms,
            limit=self.limit,
            cost=min(self.limit, self.chance.randint(2, 5)) if dear else 1,
            exact=self.chance.random() < 0.1,
            peek=self.chance.random() < 0.05,
            # What is admitted without the store is another promise.
            on_store_failure=OnStoreFailure.CLOSED,
        )


@pytest.fixture
async def channel(dragonflydb: EngineServer) -> AsyncIterator[Channel]:
    channel = await Channel.open(dragonflydb.host, dragonflydb.port, None)
    await channel.ask("AUTH", dragonflydb.admin_password)
    for script in scripts.ALL:
        await channel.ask("SCRIPT", "LOAD", script.text)
    yield channel
    channel.close()
    await asyncio.sleep(0)


async def test_no_window_ever_admits_more_than_the_limit(channel: Channel) -> None:
    places = asyncio.Semaphore(AT_ONCE)
    runs = [Run(seed, channel) for seed in range(RUNS)]

    async def play(run: Run) -> None:
        async with places:
            await run.play()

    await asyncio.gather(*(play(run) for run in runs))
    # Calls of sidecars that were killed may still be on the wire.
    await channel.ask("PING")

    windows = spent = granted = 0
    for run in runs:
        fitted = fit(run.admissions, run.wire.windows, run.window_ms, run.limit)
        assert not fitted.misplaced, f"seed {run.seed}: limit {run.limit}, {fitted.misplaced}"
        windows += len(run.wire.windows)
        spent += sum(admission.cost for admission in run.admissions)
        granted += run.wire.granted
    sources = [source for run in runs for source in run.sources]
    shares = {source.value: sources.count(source) for source in Source}
    print(
        f"\n{RUNS} runs, {windows} windows, {sum(run.crashes for run in runs)} sidecars, "
        f"{len(sources)} checks {shares}, {spent} admitted of {granted} granted, "
        f"{1 - spent / granted:.1%} stranded"
    )
    # A busy machine does a tenth in the same time; nothing at all would prove nothing.
    assert windows > RUNS / 2
    assert spent > RUNS / 5
    assert min(shares.values()) > 0


def test_what_fits_no_window_is_found() -> None:
    early, late, between = Admission(0, 1), Admission(150, 151), Admission(90, 160)

    assert not fit([early, late, between], [100, 200], 100, limit=2).misplaced
    assert fit([early, late, between], [100, 200], 100, limit=2).used == {100: 2, 200: 1}
    assert fit([late, late, between], [100, 200], 100, limit=1).misplaced == [late]
    assert fit([Admission(210, 220)], [100, 200], 100, limit=9).misplaced
    assert fit([Admission(0, 1, cost=3)], [100], 100, limit=2).misplaced
