"""The bulkhead: so many calls to one engine at a time, and a short wait for the next place.

A slow engine fills its own bulkhead and nobody else's.
"""

import asyncio
from collections import deque

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import BulkheadFull

LONGEST_WAIT_SECONDS = 0.1
# Waiting longer than this share of the deadline leaves the engine too little of it.
SHARE_OF_DEADLINE = 0.25


class Bulkhead:
    """`size` places; each `enter()` that returns is followed by one `leave()`."""

    def __init__(self, engine: Engine, size: int) -> None:
        self._engine = engine
        self.size = size
        self.in_use = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def enters(self) -> bool:
        """Take a place, where there is one."""
        if self.in_use < self.size:
            self.in_use += 1
            return True
        return False

    async def enter(self, deadline: Deadline) -> None:
        """Take a place, waiting a little; raises BulkheadFull."""
        if self.enters():
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            seconds = min(LONGEST_WAIT_SECONDS, deadline.remaining() * SHARE_OF_DEADLINE)
            async with asyncio.timeout(seconds):
                await place
        except BaseException as error:
            self._give_up(place)
            if isinstance(error, TimeoutError):
                raise BulkheadFull(
                    f"{self.size} calls to {self._engine} are under way", database=self._engine
                ) from None
            raise

    def leave(self) -> None:
        """Hand the place to who waited longest, or free it."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.in_use -= 1

    def _give_up(self, place: asyncio.Future[None]) -> None:
        if place.done() and not place.cancelled():
            # The place was handed over in the instant the wait ended.
            self.leave()
        else:
            place.cancel()
            if place in self._waiting:
                self._waiting.remove(place)
