"""A pool of connections that are held while used and closed when idle: last in, first out.

Connections are of several kinds (roles), which share one limit. A connection comes back in
whatever state `release` is told; nothing is sent to the server on the way.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from plan2_sidecar.deadline import Clock
from plan2_sidecar.engines.base import IDLE_SECONDS, Background

C = TypeVar("C")


class Pool(Generic[C]):
    """At most `limit` connections, made by `connect(kind)` and ended by `disconnect`."""

    def __init__(
        self,
        connect: Callable[[str], Awaitable[C]],
        disconnect: Callable[[C], Awaitable[None]],
        limit: int,
        *,
        idle_seconds: float = IDLE_SECONDS,
        clock: Clock = time.monotonic,
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self.limit = limit
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        # By kind, (connection, since), the one that came back last at the end.
        self._idle: defaultdict[str, list[tuple[C, float]]] = defaultdict(list)
        self._in_use = 0
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False
        self.background = Background()

    def take(self, kind: str) -> C | None:
        """An idle connection of that kind, where there is one: what `acquire` mostly comes to."""
        idle = self._idle[kind]
        if not idle or self._in_use >= self.limit:
            return None
        self._in_use += 1
        return idle.pop()[0]

    @property
    def is_full(self) -> bool:
        """Whether who asks for a connection has to wait."""
        return self._in_use >= self.limit

    async def acquire(self, kind: str) -> C:
        """A connection of that kind; waits while all are in use."""
        await self._enter()
        try:
            if self._idle[kind]:
                return self._idle[kind].pop()[0]
            longest = self._idle_longest()
            if longest and self._in_use + self._idle_count() > self.limit:
                self._end_soon(longest.pop(0)[0])
            return await self._connect(kind)
        except BaseException:
            self._leave()
            raise

    def release(self, connection: C, kind: str) -> None:
        """Back for the next caller, as it is."""
        if self._waiting:
            self._leave()
        else:
            self._in_use -= 1
        if self._closed:
            self._end_soon(connection)
            return
        self._idle[kind].append((connection, self._clock()))
        if self._reaper is None:
            self._reap_in(self._idle_seconds)

    def discard(self, connection: C) -> None:
        """Out of use, and closed."""
        self._leave()
        self._end_soon(connection)

    def drop_idle(self) -> None:
        """Close what is idle: when one connection broke, those made before it likely did too."""
        for idle in self._idle.values():
            while idle:
                self._end_soon(idle.pop()[0])

    def counts(self) -> dict[str, int]:
        """`size`, `idle`, `inUse`, `max`."""
        idle = self._idle_count()
        return {
            "size": self._in_use + idle,
            "idle": idle,
            "inUse": self._in_use,
            "max": self.limit,
        }

    async def close(self, seconds: float) -> None:
        """Close what is idle, now and whatever comes back later."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        self.drop_idle()
        await self.background.finished(seconds)

    async def _enter(self) -> None:
        if self._in_use < self.limit:
            self._in_use += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled():
                # It was handed over in the instant the wait ended.
                self._leave()
            raise

    def _leave(self) -> None:
        """Hand the place to who waited longest, or free it."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._in_use -= 1

    def _reap_in(self, seconds: float) -> None:
        self._reaper = asyncio.get_running_loop().call_later(max(seconds, 0.01), self._reap)

    def _reap(self) -> None:
        self._reaper = None
        now = self._clock()
        while longest := self._idle_longest():
            since = longest[0][1]
            if now - since < self._idle_seconds:
                self._reap_in(since + self._idle_seconds - now)
                return
            self._end_soon(longest.pop(0)[0])

    def _idle_longest(self) -> list[tuple[C, float]]:
        """The kind whose first has been idle for longer than all others; empty where none is."""
        return min(filter(None, self._idle.values()), key=lambda idle: idle[0][1], default=[])

    def _idle_count(self) -> int:
        return sum(map(len, self._idle.values()))

    def _end_soon(self, connection: C) -> None:
        self.background.spawn(self._end(connection))

    async def _end(self, connection: C) -> None:
        await self._disconnect(connection)
