"""One look through both levels, which every read begins with, and the counters of it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from plan2_contract.engines import Engine
from plan2_sidecar.cache import words
from plan2_sidecar.cache.asking import Replies
from plan2_sidecar.cache.found import Found
from plan2_sidecar.cache.keys import Key
from plan2_sidecar.cache.l1 import L1, Entry
from plan2_sidecar.cache.shared import Shared, StoreAway, fallen
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import DeadlineExceeded, QueryRejected, Unavailable
from plan2_sidecar.store import STORE_SECONDS, Store

L1_LEVEL: Final = "l1"
STORE_LEVEL: Final = Engine.DRAGONFLYDB.value
LEGACY_LEVEL: Final = Engine.REDIS.value


class Read(NamedTuple):
    """What stands in the store under `name`; `value` None is nothing.

    Times are on the clock, in seconds.
    """

    name: bytes
    value: bytes | None
    asked_at: float
    expires_at: float


Keeper = Callable[[Read], None]


class Levels:
    """L1, the store, the legacy Redis. `counts` is how often each was asked, by result."""

    def __init__(self, shared: Shared, l1: L1, legacy: Store, clock: Clock) -> None:
        self.shared = shared
        self.l1 = l1
        self.clock = clock
        self.counts: Counter[tuple[str, str]] = Counter()
        self._legacy = legacy

    def near(self, key: Key) -> Entry | None:
        """What L1 knows of the store, which it does only while the store is listened to."""
        if not self.shared.linked:
            return None
        held = self.l1.get(self.shared.name(key))
        self.counts[L1_LEVEL, "miss" if held is None else "hit"] += 1
        return held

    def at_hand(self, name: bytes) -> Entry | None:
        """`near` by its name in the store, for who goes on asking: counts hits alone.

        The store has to be linked.
        """
        held = self.l1.get(name)
        if held is None or held.value is None:
            return None
        self.counts[L1_LEVEL, "hit"] += 1
        return held

    async def far(self, key: Key, deadline: Deadline, keep: Keeper) -> Read:
        """What the store has; raises StoreAway. Who reads the same at once shares one reading.

        `keep` is called with it where nobody wrote the key meanwhile.
        """
        try:
            await self.shared.link(deadline)
            reading: asyncio.Future[Read] = asyncio.get_running_loop().create_future()
            if not self.begin_far(self.shared.name(key), keep, _telling(reading)):
                return await self._read(self.shared.name(key), deadline, keep)
            with deadline.enforced():
                return await reading
        except StoreAway:
            self.counts[STORE_LEVEL, "away"] += 1
            raise

    def begin_far(
        self, name: bytes, keep: Keeper, told: Callable[[Read | Exception], None]
    ) -> bool:
        """As `far` without a task: `told` gets what it returns or raises, within STORE_SECONDS.

        False where it has to be awaited: nothing was asked then.
        """
        readings = self.shared.readings
        waiting = readings.get(name)
        if waiting is not None:
            waiting.append(told)
            return True
        waiting = readings[name] = [told]
        asked_at = self.clock()

        def over(outcome: Replies | Exception) -> None:
            current = readings.get(name) is waiting
            if current:
                del readings[name]
            read: Read | Exception
            if isinstance(outcome, list):
                read = _as_read(name, outcome, asked_at)
                # At once: whoever is told later of a write drops what was kept.
                if current:
                    keep(read)
            else:
                read = fallen(outcome)
            for each in waiting:
                each(read)

        if self.shared.begin(words.reading(name), 2, STORE_SECONDS, over):
            return True
        del readings[name]
        return False

    async def legacy(self, name: str, deadline: Deadline) -> Found | None:
        """What the legacy Redis has, degraded; None too where it cannot be asked."""
        if not self._legacy.configured:
            return None
        try:
            value = await self._legacy.ask("GET", name, deadline=deadline)
            left = -2 if value is None else await self._legacy.ask("PTTL", name, deadline=deadline)
        except (Unavailable, DeadlineExceeded):
            deadline.remaining()
            self.counts[LEGACY_LEVEL, "away"] += 1
            return None
        except QueryRejected:
            # Something else than a string stands there.
            left = -2
        self.counts[LEGACY_LEVEL, "miss" if left == -2 else "hit"] += 1
        if left == -2:
            return None
        ttl = None if left < 0 else max(1, math.ceil(left / 1000))
        return Found(value, ttl, LEGACY_LEVEL, degraded=True)

    async def _read(self, name: bytes, deadline: Deadline, keep: Keeper) -> Read:
        token = self.shared.reading(name)
        asked_at = self.clock()
        try:
            replies = await self.shared.ask(("GET", name), ("PTTL", name), deadline=deadline)
        except BaseException:
            self.shared.unchanged(name, token)
            raise
        read = _as_read(name, replies, asked_at)
        # At once: whoever is told later of a write drops what was kept.
        if self.shared.unchanged(name, token):
            keep(read)
        return read


def _as_read(name: bytes, replies: Replies, asked_at: float) -> Read:
    value, left = replies
    if left == -2:
        value = None
    return Read(name, value, asked_at, math.inf if left < 0 else asked_at + left / 1000)


def _telling(reading: asyncio.Future[Read]) -> Callable[[Read | Exception], None]:
    """Tells a future, which may have been given up."""

    def told(outcome: Read | Exception) -> None:
        if reading.done():
            return
        if isinstance(outcome, Exception):
            reading.set_exception(outcome)
        else:
            reading.set_result(outcome)

    return told
