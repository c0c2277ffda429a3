"""A pool of connections that are held while used and closed when idle: last in, first out.

Connections are of several kinds (roles), which share one limit. A connection comes back in
whatever state `release` is told; nothing is sent to the server on the way.
"""

import asyncio
import time
from collections import deque
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
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        # (connection, kind, since)
        self._idle: list[tuple[C, str, float]] = []
        self._in_use = 0
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False
        self.background = Background()

    def take(self, kind: str) -> C | None:
        """An idle connection of that kind, where there is one: what `acquire` mostly comes to."""
        idle = self._idle
        for index in range(len(idle) - 1, -1, -1):
            if idle[index][1] == kind and self._in_use < self._limit:
                self._in_use += 1
                return idle.pop(index)[0]
        return None

    async def acquire(self, kind: str) -> C:
        """A connection of that kind; waits while all are in use."""
        await self._enter()
        try:
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index][1] == kind:
                    return self._idle.pop(index)[0]
            if self._idle and self._in_use + len(self._idle) > self._limit:
                self.background.spawn(self._end(self._idle.pop(0)[0]))
            return await self._connect(kind)
        except BaseException:
            self._leave()
            raise

    def release(self, connection: C, kind: str) -> None:
        """Back for the next caller, as it is."""
        self._leave()
        if self._closed:
            self.background.spawn(self._end(connection))
            return
        self._idle.append((connection, kind, self._clock()))
        if self._reaper is None:
            self._reap_in(self._idle_seconds)

    def discard(self, connection: C) -> None:
        """Out of use, and closed."""
        self._leave()
        self.background.spawn(self._end(connection))

    def drop_idle(self) -> None:
        """Close what is idle: when one connection broke, those made before it likely did too."""
        while self._idle:
            self.background.spawn(self._end(self._idle.pop()[0]))

    def counts(self) -> dict[str, int]:
        """`size`, `idle`, `inUse`, `max`."""
        idle = len(self._idle)
        return {
            "size": self._in_use + idle,
            "idle": idle,
            "inUse": self._in_use,
            "max": self._limit,
        }

    async def close(self, seconds: float) -> None:
        """Close what is idle, now and whatever comes back later."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        while self._idle:
            self.background.spawn(self._end(self._idle.pop()[0]))
        await self.background.finished(seconds)

    async def _enter(self) -> None:
        if self._in_use < self._limit:
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
        while self._idle and now - self._idle[0][2] >= self._idle_seconds:
            self.background.spawn(self._end(self._idle.pop(0)[0]))
        if self._idle:
            self._reap_in(self._idle[0][2] + self._idle_seconds - now)

    async def _end(self, connection: C) -> None:
        await self._disconnect(connection)
