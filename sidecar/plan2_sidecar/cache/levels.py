"""One look through both levels, which every read begins with, and the counters of it."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from plan2_contract.engines import Engine
from plan2_sidecar.cache.flights import Flights
from plan2_sidecar.cache.found import Found
from plan2_sidecar.cache.keys import Key
from plan2_sidecar.cache.l1 import L1, Entry
from plan2_sidecar.cache.shared import Shared, StoreAway, reading_of
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import DeadlineExceeded, QueryRejected, Unavailable
from plan2_sidecar.store import Store

L1_LEVEL: Final = "l1"
STORE_LEVEL: Final = Engine.DRAGONFLYDB.value
LEGACY_LEVEL: Final = Engine.REDIS.value


@dataclass(frozen=True, slots=True)
class Read:
    """What stands in the store under `name`; `value` None is nothing.

    Times are on the clock, in seconds.
    """

    name: bytes
    value: bytes | None
    asked_at: float
    expires_at: float


class Levels:
    """L1, the store, the legacy Redis. `counts` is how often each was asked, by result."""

    def __init__(
        self, shared: Shared, l1: L1, flights: Flights, legacy: Store, clock: Clock
    ) -> None:
        self.shared = shared
        self.l1 = l1
        self.clock = clock
        self.counts: Counter[tuple[str, str]] = Counter()
        self._flights = flights
        self._legacy = legacy

    def near(self, key: Key) -> Entry | None:
        """What L1 knows of the store, which it does only while the store is listened to."""
        if not self.shared.linked:
            return None
        held = self.l1.get(self.shared.name(key))
        self.counts[L1_LEVEL, "miss" if held is None else "hit"] += 1
        return held

    def at_hand(self, key: Key) -> Entry | None:
        """`near`, for one who asks `near` again where there is nothing: counts hits alone."""
        if not self.shared.linked:
            return None
        held = self.l1.get(self.shared.name(key))
        if held is not None and held.value is not None:
            self.counts[L1_LEVEL, "hit"] += 1
        return held

    async def far(self, key: Key, deadline: Deadline, keep: Callable[[Read], None]) -> Read:
        """What the store has; raises StoreAway. Who reads the same at once shares one reading.

        `keep` is called with it where nobody wrote the key meanwhile.
        """
        try:
            await self.shared.link(deadline)
            name = self.shared.name(key)

            async def read() -> Read:
                return await self._read(name, deadline, keep)

            found: Read = await self._flights.join(reading_of(name), read, deadline)
        except StoreAway:
            self.counts[STORE_LEVEL, "away"] += 1
            raise
        return found

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

    async def _read(self, name: bytes, deadline: Deadline, keep: Callable[[Read], None]) -> Read:
        token = self.shared.reading(name)
        asked_at = self.clock()
        try:
            value, left = await self.shared.ask(("GET", name), ("PTTL", name), deadline=deadline)
        except BaseException:
            self.shared.unchanged(name, token)
            raise
        if left == -2:
            value = None
        expires_at = math.inf if left < 0 else asked_at + left / 1000
        read = Read(name, value, asked_at, expires_at)
        # At once: whoever is told later of a write drops what was kept.
        if self.shared.unchanged(name, token):
            keep(read)
        return read
