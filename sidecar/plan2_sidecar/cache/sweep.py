"""Taking away what an older epoch left in the store, where nothing would ever read it again.

One sidecar does it after each change of the epoch, a few hundred keys at a time.
"""

import asyncio
import logging
import re
from typing import Final

from plan2_sidecar.cache.keys import Kind
from plan2_sidecar.cache.shared import Shared, StoreAway
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import Problem

LOG = logging.getLogger(__name__)

LOCK_MS: Final = 60_000
ASKED_AT_ONCE: Final = 500
PAUSE_SECONDS: Final = 0.01
STEP_SECONDS: Final = 2.0

_NAME: Final = re.compile(rb"p2(?:@(\d+))?:[%s]:" % b"".join(k.value.encode() for k in Kind))


class Sweeper:
    """One sidecar's."""

    def __init__(self, shared: Shared, clock: Clock) -> None:
        self._shared = shared
        self._clock = clock
        self._swept: int | None = None
        self._sweeping: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Begin where the epoch is another than the last time, and is not the first."""
        epoch = self._shared.epoch.number
        busy = self._sweeping is not None and not self._sweeping.done()
        if self._shared.linked and epoch and epoch != self._swept and not busy:
            self._sweeping = asyncio.create_task(self._sweep(epoch))

    async def close(self) -> None:
        """Leave the rest to another."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    async def _sweep(self, epoch: int) -> None:
        try:
            locking = ("SET", f"p2:sweep:{epoch}", 1, "NX", "PX", LOCK_MS)
            if (await self._shared.ask(locking, deadline=self._soon()))[0] is not None:
                count = await self._take_away(epoch)
                LOG.info("took away %s keys from before epoch %s", count, epoch)
        except (StoreAway, Problem) as error:
            LOG.debug("the sweep ended early: %s", error)
            return
        self._swept = epoch

    async def _take_away(self, epoch: int) -> int:
        cursor, count = b"0", 0
        while True:
            scanning = ("SCAN", cursor, "MATCH", "p2*", "COUNT", ASKED_AT_ONCE)
            cursor, names = (await self._shared.ask(scanning, deadline=self._soon()))[0]
            old = [name for name in names if is_older(name, epoch)]
            if old:
                await self._shared.ask(("UNLINK", *old), deadline=self._soon())
                count += len(old)
            if cursor in (b"0", 0):
                return count
            await asyncio.sleep(PAUSE_SECONDS)

    def _soon(self) -> Deadline:
        return Deadline.after(STEP_SECONDS, self._clock)


def is_older(name: bytes, epoch: int) -> bool:
    """Whether it is the name of a cached thing, in an epoch before this one."""
    found = _NAME.match(name)
    return found is not None and int(found[1] or 0) < epoch
