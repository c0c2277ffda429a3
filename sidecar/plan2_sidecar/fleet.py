"""The configured engines: a client each, opened on first use, swapped when a connection changes.

A new connection document replaces only the engines whose connection it changes. New calls take
the new client at once; calls under way finish on the old one, which is then closed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from plan2_contract.connection import Document, KeyValue, MongoDB, Sql, Weaviate
from plan2_contract.engines import Engine
from plan2_sidecar import engines, lean
from plan2_sidecar.connections import Connections
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.engines.base import Calls, Cancel, EngineClient, Shared, Told
from plan2_sidecar.errors import BreakerOpen, EngineNotConfigured, Problem
from plan2_sidecar.guard import Guard
from plan2_sidecar.guard.retries import RetryBudget
from plan2_sidecar.health import Health, State
from plan2_sidecar.query import Query, Result
from plan2_sidecar.routing import defines_tables

LOG = logging.getLogger(__name__)

T = TypeVar("T")
Connection = Sql | KeyValue | Weaviate | MongoDB
Begin = Callable[[Query, Deadline, Told], Cancel | None]
Opener = Callable[[Engine, Connection], Coroutine[Any, Any, EngineClient]]

PING_SECONDS = 1.0
# The longest deadline: what a call that began on an old client may still take.
DRAIN_SECONDS = 60.0
CLOSE_SECONDS = 5.0


async def open_client(engine: Engine, connection: Connection) -> EngineClient:
    """The engine's client. Its driver is imported off the loop, which serves the others."""
    module = engines.FACTORIES[engine].partition(":")[0]
    await asyncio.to_thread(lean.load, module)
    return engines.open_engine(engine, connection)


class Member:
    """One configured engine: its client, its guard, its health."""

    def __init__(self, engine: Engine, connection: Connection, opener: Opener, clock: Clock):
        self.engine = engine
        self.connection = connection
        self.guard = Guard(engine, connection.pool_max, clock)
        self.retries = RetryBudget()
        self.health = Health(engine, clock, time.time)
        self._opener = opener
        self._clock = clock
        # How many statements have passed that may make or remove tables.
        self.definitions = 0
        self._client: EngineClient | None = None
        self._begin: Begin | None = None
        self._short: Shared | None = None
        self._opening: asyncio.Task[EngineClient] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._calls = Calls()

    async def execute(self, query: Query, deadline: Deadline) -> Result:
        """Run the query behind the guard; raises Problem."""
        try:
            return await self.use(lambda client: client.execute(query, deadline), deadline)
        finally:
            if defines_tables(query.query):
                self.definitions += 1

    async def use(
        self,
        work: Callable[[Any], Awaitable[T]],
        deadline: Deadline,
        *,
        timed: bool = True,
        shared: bool = False,
    ) -> T:
        """Run `work` on the engine's own client behind the guard; raises Problem.

        `timed` False when its seconds are not the engine's alone; `shared` where it is a command
        on a connection that carries many at once.
        """
        started = self._clock()
        client = self._client
        self._calls.enter()
        try:
            result = await self.guard.run(
                (lambda: self._run(work))
                if client is None
                else (lambda: work(engines.opened(client))),
                deadline,
                shared=shared,
            )
        except Problem as problem:
            self.health.failed(problem)
            raise
        finally:
            self._calls.leave()
        if timed:
            self.health.answered(self._clock() - started)
        else:
            self.health.well()
        return result

    def begin(self, query: Query, deadline: Deadline, told: Told) -> Cancel | None:
        """`execute` without a task; None where it has to be awaited: nothing was done then.

        Only for what makes no tables. What is returned cancels it, which is told as well; so may
        be Unanswered.
        """
        begin = self._begin or self._find_begin()
        if begin is None:
            return None
        short = self._short
        if short is not None and short.takes(query):
            cancel = self._begun(short.begin, query, deadline, told, shared=True)
            if cancel is not None:
                return cancel
        return self._begun(begin, query, deadline, told, shared=False)

    def _begun(
        self, begin: Begin, query: Query, deadline: Deadline, told: Told, *, shared: bool
    ) -> Cancel | None:
        try:
            passage = self.passes(shared=shared)
        except BreakerOpen:
            return None
        if passage is None:
            return None

        def over(outcome: Result | BaseException) -> None:
            if isinstance(outcome, Result):
                passage.over(None)
            elif isinstance(outcome, Problem):
                passage.over(outcome)
            else:
                passage.given_up()
            told(outcome)

        cancel = begin(query, deadline, over)
        if cancel is None:
            passage.given_up()
        return cancel

    def _find_begin(self) -> Begin | None:
        if self._client is not None:
            client = engines.opened(self._client)
            self._begin = getattr(client, "begin", None)
            self._short = getattr(client, "short", None)
        return self._begin

    def passes(self, *, shared: bool = True) -> Passage | None:
        """A passage for one call to the client, which must be open.

        `shared` as in `use`. None where there is no place at once; raises BreakerOpen.
        """
        probe = self.guard.admit(shared=shared)
        return None if probe is None else Passage(self, probe, shared)

    async def check(self, fresh_seconds: float) -> None:
        """Ping, unless the state was learnt within `fresh_seconds`; callers share one ping.

        An engine that is up and never told its version is asked all the same.
        """
        known = self.health.version is not None or self.health.state is State.DOWN
        if known and self.health.fresh(fresh_seconds):
            return
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._ping())
        await asyncio.shield(self._checking)

    def pool(self) -> dict[str, int]:
        """The client's pool; before it is opened, an empty one."""
        if self._client is None:
            return {"size": 0, "idle": 0, "inUse": 0, "max": self.connection.pool_max}
        return self._client.pool()

    async def retire(self, seconds: float) -> None:
        """Let the calls under way finish, at most so long, and close the client."""
        if not await self._calls.drained(seconds):
            LOG.warning("%s: calls still under way after %s s", self.engine, seconds)
        if self._checking is not None:
            self._checking.cancel()
        if self._opening is None:
            return
        try:
            client = await self._opening
            await client.close(CLOSE_SECONDS)
        except Exception:
            LOG.exception("%s: closing the client failed", self.engine)

    async def _run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        client = self._client or await self._open()
        return await work(engines.opened(client))

    async def _ping(self) -> None:
        self._calls.enter()
        try:
            client = self._client or await self._open()
            deadline = Deadline.after(PING_SECONDS, self._clock)
            async with deadline.enforced():
                version = await client.ping(deadline)
        except Problem as problem:
            self.health.ill(problem.detail)
        except Exception as error:
            LOG.exception("%s: the ping failed in a way nobody thought of", self.engine)
            self.health.ill(type(error).__name__)
        else:
            self.health.version = version
            self.health.well()
            self.guard.breaker.close()
        finally:
            self._calls.leave()

    async def _open(self) -> EngineClient:
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(self._opener(self.engine, self.connection))
        self._client = await asyncio.shield(self._opening)
        return self._client


class Passage:
    """One call behind the guard without a task, until it is `over` or `given_up`."""

    __slots__ = ("_member", "_probe", "_shared", "_started")

    def __init__(self, member: Member, probe: bool, shared: bool) -> None:
        self._member = member
        self._probe = probe
        self._shared = shared
        self._started = member._clock()
        member._calls.enter()

    def over(self, problem: Problem | None) -> None:
        """It was answered, or ended with `problem`, which from now on names the engine."""
        member = self._member
        seconds = member._clock() - self._started
        member._calls.leave()
        member.guard.left(problem, seconds, self._probe, shared=self._shared)
        if problem is None:
            member.health.answered(seconds)
        else:
            member.health.failed(problem)

    def given_up(self) -> None:
        """It ended without saying anything about the engine."""
        self._member._calls.leave()
        self._member.guard.given_up(self._probe, shared=self._shared)


class Fleet:
    """All members, kept to the newest connection document."""

    def __init__(
        self,
        connections: Connections,
        required: frozenset[Engine] = frozenset(),
        opener: Opener = open_client,
        clock: Clock = time.monotonic,
    ) -> None:
        self.document: Document | None = None
        self.changes = 0
        self._connections = connections
        self._required = required
        self._opener = opener
        self._clock = clock
        # The configured engines, in the order of `Engine`: another mapping when they change.
        self.members: Mapping[Engine, Member] = {}
        self._reached: set[Engine] = set()
        self._retiring: set[asyncio.Task[None]] = set()

    def member(self, engine: Engine) -> Member:
        """The engine's member; raises EngineNotConfigured."""
        member = self.members.get(engine)
        if member is None:
            raise EngineNotConfigured(
                f"this sidecar has no connection for {engine}", database=engine
            )
        return member

    def refresh(self) -> bool:
        """Look for a newer document and take it over; True when there was one."""
        document = self._connections.poll()
        if document is None or document == self.document:
            return False
        self._apply(document)
        return True

    def unreached(self) -> list[Engine]:
        """The required engines that have not answered once since the start."""
        required = set(self._required)
        if self.document is not None:
            required.update(self.document.required())
        for engine, member in self.members.items():
            if member.health.state is State.UP:
                self._reached.add(engine)
        return sorted(required - self._reached)

    async def check_required(self) -> None:
        """Ping the required engines that were never reached."""
        await self.check(
            [member for name in self.unreached() if (member := self.members.get(name))], 0
        )

    async def check(self, members: list[Member], fresh_seconds: float) -> None:
        """Ping these, all at once, but for those whose state is fresh."""
        await asyncio.gather(*(member.check(fresh_seconds) for member in members))

    async def close(self) -> None:
        """Close every client; calls have ended before."""
        members, self.members = list(self.members.values()), {}
        await asyncio.gather(*(member.retire(CLOSE_SECONDS) for member in members))
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=CLOSE_SECONDS)

    def _apply(self, document: Document) -> None:
        before, now = dict(self.members), {}
        for engine, connection in document.engines.configured():
            member = before.pop(engine, None)
            if member is None or member.connection != connection:
                if member is not None:
                    self._retire(member)
                member = Member(engine, connection, self._opener, self._clock)
            now[engine] = member
        self.members = now
        for member in before.values():
            self._retire(member)
        self.document = document
        self.changes += 1
        LOG.info("configured: %s", ", ".join(self.members) or "nothing")

    def _retire(self, member: Member) -> None:
        task = asyncio.create_task(member.retire(DRAIN_SECONDS))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
