"""Reading through: what another engine holds, kept here, and never older than a write to it.

Who misses puts a lease in the value's place, reads the truth, and fills it in where the lease
still stands (`entry`). A `put` or `delete` that came between took the lease away, so what was
read before it is not kept.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final

from plan2_sidecar.cache import entry
from plan2_sidecar.cache.entry import Kept
from plan2_sidecar.cache.flights import Flights
from plan2_sidecar.cache.found import Found, Loaded
from plan2_sidecar.cache.keys import Key
from plan2_sidecar.cache.l1 import FRESH_SECONDS
from plan2_sidecar.cache.levels import L1_LEVEL, STORE_LEVEL, Levels, Read
from plan2_sidecar.cache.shared import StoreAway
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.engines.base import Background
from plan2_sidecar.errors import BulkheadFull, DeadlineExceeded, Problem, Unavailable

LEASE_MS: Final = 15_000
# For another sidecar that reads the same, half a second in all.
_WAITS: Final = (0.01, 0.02, 0.03, 0.04, 0.05, 0.05, 0.1, 0.1, 0.1)
RELEASE_SECONDS: Final = 0.5
# A longer value costs more to keep than to read.
LARGEST_BYTES: Final = 8 * 1024 * 1024

Loader = Callable[[], Awaitable[bytes]]
# The seconds left may have a fraction: what is kept must not outlive them.
TtlLoader = Callable[[], Awaitable[tuple[bytes, float | None] | None]]


class Reading:
    """`through` and `load` of `tiers`."""

    def __init__(self, levels: Levels, flights: Flights) -> None:
        self._levels = levels
        self._shared = levels.shared
        self._flights = flights
        self._background = Background()

    async def through(
        self, key: Key, loader: TtlLoader, deadline: Deadline, truth: str
    ) -> Found | None:
        """A miss of `tiers.get`, filled in; raises StoreAway before anything was read."""
        name = self._shared.name(key)

        async def fill() -> tuple[bytes, float | None] | None:
            lease, _ = await self._lease(name, deadline)
            try:
                loaded = await loader()
            except BaseException:
                self._release(name, lease)
                raise
            if loaded is None:
                self._release(name, lease)
            else:
                await self._fill(name, lease, loaded[0], _milliseconds(loaded[1]), deadline)
            return loaded

        loaded = await self._flights.join(name, fill, deadline)
        return None if loaded is None else Found(loaded[0], _seconds(loaded[1]), truth)

    async def through_alone(
        self, key: Key, loader: TtlLoader, deadline: Deadline, truth: str
    ) -> Found | None:
        """The truth, while the store is away."""

        async def fill() -> tuple[bytes, float | None] | None:
            return await loader()

        loaded = await self._flights.join(key, fill, deadline)
        if loaded is None:
            return None
        return Found(loaded[0], _seconds(loaded[1]), truth, degraded=self._shared.configured)

    async def load(self, key: Key, ttl_ms: int, loader: Loader, deadline: Deadline) -> Loaded:
        """As `tiers.load`."""
        near = self._levels.near(key)
        if near is not None and near.value is not None and self._young(near.born, ttl_ms):
            return Loaded(near.value, "hit", source=L1_LEVEL)
        try:
            read = await self._levels.far(key, deadline, self._keep)
        except (StoreAway, BulkheadFull):
            return await self.load_here(key, ttl_ms, loader, deadline)
        kept = _kept(read)
        if kept is not None and kept.fresh(ttl_ms):
            self._levels.counts[STORE_LEVEL, "hit"] += 1
            return Loaded(kept.value, "hit", source=STORE_LEVEL)
        self._levels.counts[STORE_LEVEL, "miss" if kept is None else "stale"] += 1
        return await self._load_anew(read.name, kept, ttl_ms, loader, deadline)

    async def close(self, seconds: float) -> None:
        """End what goes on behind callers' backs."""
        await self._background.finished(seconds)

    async def _load_anew(
        self, name: bytes, kept: Kept | None, ttl_ms: int, loader: Loader, deadline: Deadline
    ) -> Loaded:
        async def fill() -> Loaded:
            return await self._refill(name, kept, ttl_ms, loader, deadline)

        if kept is not None and kept.revalidates(ttl_ms):
            self._flights.begin(name, fill)
            return Loaded(kept.value, "stale", source=STORE_LEVEL)
        try:
            loaded: Loaded = await self._flights.join(name, fill, deadline)
        except (Unavailable, DeadlineExceeded):
            if kept is None or not kept.consoles(ttl_ms):
                raise
            return Loaded(kept.value, "stale", degraded=True, source=STORE_LEVEL)
        return loaded

    async def _refill(
        self, name: bytes, kept: Kept | None, ttl_ms: int, loader: Loader, deadline: Deadline
    ) -> Loaded:
        """Load, and keep what was loaded unless somebody wrote the key meanwhile."""
        tag = None if kept is None else kept.tag
        if tag is None:
            tag, mine = await self._lease(name, deadline)
            if tag is not None and not mine:
                found = await self._others(name, ttl_ms, deadline)
                if found is not None:
                    return found
        token = self._shared.reading(name)
        born = self._levels.clock()
        try:
            value = await loader()
        except BaseException as error:
            self._shared.unchanged(name, token)
            if kept is None or not _passes(error):
                self._release(name, tag)
            raise
        held, total_ms = entry.encode(value, ttl_ms), entry.total_ms(ttl_ms)
        filled = False
        try:
            filled = await self._fill(name, tag, held, total_ms, deadline)
        finally:
            if self._shared.unchanged(name, token) and filled:
                self._remember(name, value, born, ttl_ms)
        return Loaded(value, "miss")

    async def load_here(self, key: Key, ttl_ms: int, loader: Loader, deadline: Deadline) -> Loaded:
        """Without the store: kept here as long as an answer may be older than the truth at all."""
        held = self._levels.l1.get(key)
        if held is not None and held.value is not None and self._young(held.born, ttl_ms):
            self._levels.counts[L1_LEVEL, "hit"] += 1
            return Loaded(held.value, "hit", source=L1_LEVEL)

        async def fill() -> Loaded:
            token = self._shared.reading(key)
            born = self._levels.clock()
            try:
                value = await loader()
            except BaseException:
                self._shared.unchanged(key, token)
                raise
            if self._shared.unchanged(key, token):
                self._remember(key, value, born, ttl_ms)
            return Loaded(value, "miss")

        loaded: Loaded = await self._flights.join(key, fill, deadline)
        return loaded

    async def _lease(self, name: bytes, deadline: Deadline) -> tuple[bytes | None, bool]:
        """The lease in the value's place and whether it is ours; None where a value is."""
        lease = entry.lease()
        taking = ("SET", name, lease, "NX", "PX", LEASE_MS)
        looking = ("GETRANGE", name, 0, len(lease) - 1)
        try:
            _, held = await self._shared.ask(taking, looking, deadline=deadline)
        except (StoreAway, Unavailable):
            return None, False
        return (held, held == lease) if entry.is_lease(held) else (None, False)

    async def _others(self, name: bytes, ttl_ms: int, deadline: Deadline) -> Loaded | None:
        """What another sidecar is reading, if it soon has it."""
        for seconds in _WAITS:
            await asyncio.sleep(seconds)
            try:
                held, left = await self._shared.ask(
                    ("GET", name), ("PTTL", name), deadline=deadline
                )
            except (StoreAway, Unavailable):
                return None
            if held is None or not entry.is_lease(held):
                kept = None if held is None else entry.decode(held, left)
                if kept is None or not kept.fresh(ttl_ms):
                    return None
                return Loaded(kept.value, "hit", source=STORE_LEVEL)
        return None

    async def _fill(
        self, name: bytes, tag: bytes | None, held: bytes, total_ms: int, deadline: Deadline
    ) -> bool:
        """Put it where the tag stands; whether it stood there."""
        if tag is None or len(held) > LARGEST_BYTES:
            self._release(name, tag)
            return False
        filling = ("EVAL", entry.FILL, 1, name, tag, held, total_ms)
        try:
            return bool((await self._shared.ask(filling, deadline=deadline))[0])
        except (StoreAway, Unavailable):
            return False

    def _release(self, name: bytes, tag: bytes | None) -> None:
        """Take the lease, or the value that `tag` stands for, away."""
        if tag is None:
            return
        releasing = ("EVAL", entry.RELEASE, 1, name, tag)

        async def release() -> None:
            deadline = Deadline.after(RELEASE_SECONDS, self._levels.clock)
            try:
                await self._shared.ask(releasing, deadline=deadline)
            except (StoreAway, Problem):
                # It ends by itself.
                return

        self._background.spawn(release())

    def _keep(self, read: Read) -> None:
        kept = _kept(read)
        if kept is not None:
            self._remember(read.name, kept.value, read.asked_at - kept.age_ms / 1000, kept.ttl_ms)

    def _remember(self, name: bytes | Key, value: bytes, born: float, ttl_ms: int) -> None:
        ends = born + ttl_ms / 1000
        self._levels.l1.put(name, value, expires_at=ends, fresh_seconds=FRESH_SECONDS, born=born)

    def _young(self, born: float, ttl_ms: int) -> bool:
        return self._levels.clock() - born < ttl_ms / 1000


def _kept(read: Read) -> Kept | None:
    left_ms = (read.expires_at - read.asked_at) * 1000
    return None if read.value is None else entry.decode(read.value, left_ms)


def _passes(error: BaseException) -> bool:
    """Whether the truth may be as it was: it could not be asked."""
    return not isinstance(error, Problem) or isinstance(error, Unavailable | DeadlineExceeded)


def _milliseconds(seconds: float | None) -> int:
    """As `FILL` takes them: 0 has no end."""
    return 0 if seconds is None else max(1, int(seconds * 1000))


def _seconds(left: float | None) -> int | None:
    """Whole ones, rounded up."""
    return None if left is None else max(1, math.ceil(left))
