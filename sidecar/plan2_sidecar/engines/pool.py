"""A pool of connections that are held while used and closed when idle: last in, first out.

Connections are of several kinds (roles), which share one limit. A connection comes back in
whatever state `release` is told; nothing is sent to the server on the way.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from plan2_sidecar.deadline import Clock
from plan2_sidecar.engines.base import IDLE_SECONDS, Background

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class _Idle(Generic[C]):
    connection: C
    kind: str
    since: float


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
        self._free = asyncio.Semaphore(limit)
        self._idle: list[_Idle[C]] = []
        self._in_use = 0
        self._reaper: asyncio.TimerHandle | None = None
        self._closed = False
        self.background = Background()

    async def acquire(self, kind: str) -> C:
        """A connection of that kind; waits while all are in use."""
        await self._free.acquire()
        self._in_use += 1
        try:
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index].kind == kind:
                    return self._idle.pop(index).connection
            if self._idle and self._in_use + len(self._idle) > self._limit:
                self.background.spawn(self._end(self._idle.pop(0).connection))
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
        self._idle.append(_Idle(connection, kind, self._clock()))
        if self._reaper is None:
            self._reap_in(self._idle_seconds)

    def discard(self, connection: C) -> None:
        """Out of use, and closed."""
        self._leave()
        self.background.spawn(self._end(connection))

    def drop_idle(self) -> None:
        """Close what is idle: when one connection broke, those made before it likely did too."""
        while self._idle:
            self.background.spawn(self._end(self._idle.pop().connection))

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
            self.background.spawn(self._end(self._idle.pop().connection))
        await self.background.finished(seconds)

    def _leave(self) -> None:
        self._in_use -= 1
        self._free.release()

    def _reap_in(self, seconds: float) -> None:
        self._reaper = asyncio.get_running_loop().call_later(max(seconds, 0.01), self._reap)

    def _reap(self) -> None:
        self._reaper = None
        now = self._clock()
        while self._idle and now - self._idle[0].since >= self._idle_seconds:
            self.background.spawn(self._end(self._idle.pop(0).connection))
        if self._idle:
            self._reap_in(self._idle[0].since + self._idle_seconds - now)

    async def _end(self, connection: C) -> None:
        await self._disconnect(connection)
