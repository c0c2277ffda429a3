"""The two levels as one: in this process, then DragonflyDB, and for cache reads the legacy Redis.

A value never outlives its ttl. What one sidecar wrote it reads; others see a change within a
second. Stale values come from `load` alone, which says so. While the store is away, what this
sidecar writes is kept here, once the epoch was raised so that nobody will find in the store
what the write replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from plan2_contract.engines import Engine
from plan2_sidecar.cache import entry, words
from plan2_sidecar.cache.asking import Replies
from plan2_sidecar.cache.flights import Flights
from plan2_sidecar.cache.found import Found, Loaded, Written
from plan2_sidecar.cache.keys import Key
from plan2_sidecar.cache.l1 import L1, Entry
from plan2_sidecar.cache.levels import L1_LEVEL, STORE_LEVEL, Levels, Read
from plan2_sidecar.cache.link import Word
from plan2_sidecar.cache.reading import Loader, Reading, TtlLoader
from plan2_sidecar.cache.shared import Shared, StoreAway, fallen
from plan2_sidecar.cache.sweep import Sweeper
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import EngineNotConfigured, EngineUnavailable, Problem
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.store import STORE_SECONDS, Store

__all__ = ["Found", "Loaded", "Tiers", "Written"]

CLOSE_SECONDS: Final = 1.0

Finder = Callable[[Found | Exception | None], None]


class Tiers:
    """Both levels. Deadlines are the calls'; every method raises Problem."""

    def __init__(self, fleet: Fleet, database: Database, l1: L1, clock: Clock) -> None:
        flights = Flights()
        self.l1 = l1
        self.shared = Shared(fleet, database, l1, flights, clock)
        self.levels = Levels(self.shared, l1, Store(fleet, Engine.REDIS), clock)
        self._reading = Reading(self.levels, flights)
        self._sweeper = Sweeper(self.shared, clock)
        self._clock = clock

    @property
    def configured(self) -> bool:
        """Whether there is a store at all."""
        return self.shared.configured

    async def get(self, key: Key, deadline: Deadline, *, legacy: str | None = None) -> Found | None:
        """The value, or None. Where the store is away: what was written here meanwhile, else
        what the legacy Redis has at `legacy`.
        """
        found, _ = await self.find(key, deadline, legacy=legacy)
        return found

    def look_here(self, key: Key) -> tuple[bytes, Found | None] | None:
        """What the key is called in the store, and what `find` would find without asking it.

        None where there is no store to ask at once. A miss is counted by who goes on.
        """
        if not self.shared.linked:
            return None
        name = self.shared.name(key)
        held = self.levels.at_hand(name)
        return name, None if held is None else self._near(held)

    def begin_find(self, name: bytes, told: Finder) -> bool:
        """`find` in the store without a task, behind `look_here`; False where it is to be awaited.

        `told` gets what was found, StoreAway, which `find_elsewhere` goes on from, or a Problem,
        within STORE_SECONDS.
        """
        levels = self.levels

        def over(outcome: Read | Exception) -> None:
            if isinstance(outcome, Read):
                told(self._found(outcome))
            else:
                if isinstance(outcome, StoreAway):
                    levels.counts[STORE_LEVEL, "away"] += 1
                told(outcome)

        begun = levels.begin_far(name, self._keep, over)
        if begun:
            levels.counts[L1_LEVEL, "miss"] += 1
        return begun

    async def find(
        self, key: Key, deadline: Deadline, *, legacy: str | None = None
    ) -> tuple[Found | None, bool]:
        """`get`, and whether the answer is degraded, which None may be as well."""
        try:
            return await self._get(key, deadline), False
        except StoreAway:
            return await self.find_elsewhere(key, deadline, legacy=legacy)

    async def find_elsewhere(
        self, key: Key, deadline: Deadline, *, legacy: str | None = None
    ) -> tuple[Found | None, bool]:
        """`find` where the store is away."""
        held = self.l1.get(key)
        if held is not None:
            return self._pinned(held), True
        found = None if legacy is None else await self.levels.legacy(legacy, deadline)
        return found, self.configured

    def begin_put(
        self,
        key: Key,
        value: bytes,
        ttl_seconds: int | None,
        deadline: Deadline,
        told: Callable[[Written | Exception], None],
    ) -> bool:
        """`put` without a task; False where it has to be awaited: nothing was sent then.

        `told` gets what was written, StoreAway, which `put` goes on from, or a Problem.
        """
        if not self.configured:
            return False

        def over(outcome: Replies | Exception) -> None:
            self._touched(key)
            told(fallen(outcome) if isinstance(outcome, Exception) else Written())

        packed = words.setting(self.shared.name(key), value, ttl_seconds)
        return self.shared.begin(packed, 1, _patience(deadline), over)

    async def put(
        self,
        key: Key,
        value: bytes,
        ttl_seconds: int | None,
        deadline: Deadline,
        *,
        away: StoreAway | None = None,
    ) -> Written:
        """Keep the value for `ttl_seconds`, None for ever; `away` is what `begin_put` told.

        Raises StoreFull, EngineNotConfigured without a store, and EngineUnavailable where it
        could be kept nowhere.
        """
        if not self.configured:
            raise EngineNotConfigured("there is no store", database=Engine.DRAGONFLYDB)
        began = self._clock()
        ends = () if ttl_seconds is None else ("EX", ttl_seconds)
        written = await self._write(key, ("SET", value, *ends), deadline, away)
        expires_at = math.inf if ttl_seconds is None else began + ttl_seconds
        if written.degraded and not self._pin(key, value, expires_at):
            raise EngineUnavailable(
                "the store is away and the value is too large to be kept here",
                database=Engine.DRAGONFLYDB,
            )
        return written

    async def delete(self, key: Key, deadline: Deadline) -> Written:
        """Forget the value, everywhere. Raises EngineUnavailable where that cannot be said."""
        if not self.configured:
            self.shared.touched(key)
            return Written(source=L1_LEVEL)
        written = await self._write(key, ("DEL",), deadline)
        if written.degraded:
            self._pin(key, None, math.inf)
        return written

    async def through(
        self,
        key: Key,
        loader: TtlLoader,
        deadline: Deadline,
        *,
        truth: str = Engine.POSTGRESQL.value,
        missed: bool | StoreAway = False,
    ) -> Found | None:
        """The value, or what `loader` reads where the truth is: `(value, seconds)` or None.

        It is then kept, unless a `put` or `delete` came between: the way to cache what another
        engine holds. Write there first, then `delete` the key here; never `put` it, for two
        writers may come here in another order than there. `source` is then `truth`, and
        `degraded` says that the store was away; `missed` is how `begin_find` ended: True where
        it found nothing.
        """
        try:
            if isinstance(missed, StoreAway):
                raise missed
            found = None if missed else await self._get(key, deadline)
        except StoreAway:
            held = self.l1.get(key)
            if held is not None and held.value is not None:
                return self._pinned(held)
            return await self._reading.through_alone(key, loader, deadline, truth)
        return found or await self._reading.through(key, loader, deadline, truth)

    async def load(self, key: Key, ttl_ms: int, loader: Loader, deadline: Deadline) -> Loaded:
        """The value, loaded where it is not kept: one load however many ask at once.

        Within `ttl_ms` after that it is stale and loaded anew behind the caller's back; within
        ten times `ttl_ms` it answers where loading fails. Raises what `loader` raises. Whoever
        changes what `loader` reads calls `delete` afterwards.
        """
        return await self._reading.load(key, ttl_ms, loader, deadline)

    async def load_here(self, key: Key, ttl_ms: int, loader: Loader, deadline: Deadline) -> Loaded:
        """As `load` in this process alone: a value is kept for a second at most, never stale."""
        return await self._reading.load_here(key, ttl_ms, loader, deadline)

    async def forget(self, keys: Sequence[Key], deadline: Deadline) -> None:
        """`delete` them in one go, and nothing else is done: raises StoreAway, or Problem."""
        try:
            await self.shared.link(deadline)
            names = [self.shared.name(key) for key in keys]
            await self.shared.ask(("DEL", *names), deadline=deadline)
        finally:
            for key in keys:
                self.shared.touched(self.shared.name(key))

    async def look(self) -> None:
        """Once a second: learn the epoch, and whether the store is there."""
        await self.shared.look()
        self._sweeper.look()

    async def close(self) -> None:
        """End the connection to the store."""
        await self._sweeper.close()
        await self._reading.close(CLOSE_SECONDS)
        await self.shared.close()

    async def _get(self, key: Key, deadline: Deadline) -> Found | None:
        """From L1, else the store; raises StoreAway."""
        near = self.levels.near(key)
        if near is not None and near.value is not None:
            return self._near(near)
        return self._found(await self.levels.far(key, deadline, self._keep))

    def _near(self, held: Entry) -> Found:
        assert held.value is not None
        return Found(held.value, held.ttl_seconds(self._clock()), L1_LEVEL)

    def _found(self, read: Read) -> Found | None:
        """What a reading of the store comes to."""
        if read.value is None or entry.is_lease(read.value):
            self.levels.counts[STORE_LEVEL, "miss"] += 1
            return None
        self.levels.counts[STORE_LEVEL, "hit"] += 1
        left = read.expires_at - self._clock()
        ttl = None if left == math.inf else max(1, math.ceil(left))
        return Found(read.value, ttl, STORE_LEVEL)

    def _keep(self, read: Read) -> None:
        if read.value is not None and not entry.is_lease(read.value):
            self.l1.put(read.name, read.value, expires_at=read.expires_at)

    async def _write(
        self,
        key: Key,
        command: Sequence[Word],
        deadline: Deadline,
        away: StoreAway | None = None,
    ) -> Written:
        """Run `command` on the key; where the store is away, make all it holds unreadable.

        `away` is how a first attempt has ended.
        """
        for _ in range(2):
            try:
                if away is None:
                    await self._send(key, command, deadline)
                    return Written()
            except StoreAway as raised:
                away = raised
            # It may be done later, or half of it may be known: nothing more is read there.
            self.shared.unlink()
            await self._raise_epoch(away.problem, deadline)
            away = None
            if not self.shared.linked:
                return Written(degraded=True, source=L1_LEVEL)
            # It came back meanwhile, and only what is in it is what others see.
        raise EngineUnavailable("the store comes and goes", database=Engine.DRAGONFLYDB)

    async def _send(self, key: Key, command: Sequence[Word], deadline: Deadline) -> None:
        patience = _patience(deadline)
        try:
            await self.shared.link(deadline, patience)
            words = (command[0], self.shared.name(key), *command[1:])
            await self.shared.ask(words, deadline=deadline, seconds=patience)
        finally:
            self._touched(key)

    def _touched(self, key: Key) -> None:
        self.shared.touched(self.shared.name(key))
        self.shared.touched(key)

    async def _raise_epoch(self, problem: Problem, deadline: Deadline) -> None:
        try:
            await self.shared.epoch.bump(deadline)
        except Problem as second:
            deadline.remaining()
            raise EngineUnavailable(
                f"{problem.detail}; nor could PostgreSQL note the write: {second.detail}",
                database=Engine.DRAGONFLYDB,
            ) from second

    def _pinned(self, held: Entry) -> Found | None:
        """What was written here while the store was away."""
        self.levels.counts[L1_LEVEL, "hit"] += 1
        if held.value is None:
            return None
        return Found(held.value, held.ttl_seconds(self._clock()), L1_LEVEL, degraded=True)

    def _pin(self, key: Key, value: bytes | None, expires_at: float) -> bool:
        return self.l1.put(key, value, expires_at=expires_at, pinned=True)


def _patience(deadline: Deadline) -> float:
    """How long a write waits for the store, in seconds; raises DeadlineExceeded."""
    return max(STORE_SECONDS, deadline.remaining() / 2)
