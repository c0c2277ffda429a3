"""The level that all sidecars share: DragonflyDB over a link that tells what others change.

What was read over the link is no older than its last push; when it ends, all that this process
remembers of the store is dropped. While there is none, calls raise StoreAway and their callers
fall back.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

from plan2_contract.engines import Engine
from plan2_sidecar.cache.asking import Told
from plan2_sidecar.cache.epoch import Epoch
from plan2_sidecar.cache.flights import Flights
from plan2_sidecar.cache.incarnation import MARKER, decode
from plan2_sidecar.cache.keys import Key
from plan2_sidecar.cache.l1 import L1
from plan2_sidecar.cache.link import Link, Linker, Word
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import (
    BreakerOpen,
    BulkheadFull,
    DeadlineExceeded,
    EngineNotConfigured,
    Problem,
    StoreFull,
    Unavailable,
)
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.store import STORE_SECONDS

LOG = logging.getLogger(__name__)

LINK_SECONDS: Final = 2.0
# Between two tries to link, lest every request of a bad moment opens a connection.
REST_SECONDS: Final = 0.2
LOOK_SECONDS: Final = 2.0
# A sidecar whose caches nobody uses looks seldom, and once more before the next use.
IDLE_SECONDS: Final = 60.0
DOZE_SECONDS: Final = 20.0


# From a store that is there.
_WELL: Final = (StoreFull, BulkheadFull)


class StoreAway(Exception):
    """The store cannot be asked; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def fallen(problem: Exception) -> Exception:
    """What `begin` was told, as `ask` raises it: StoreAway where the store cannot be asked."""
    if isinstance(problem, DeadlineExceeded | Unavailable) and not isinstance(problem, _WELL):
        return StoreAway(problem)
    return problem


class Shared:
    """The store, the epoch of its keys, and what `l1` may remember of it."""

    def __init__(
        self, fleet: Fleet, database: Database, l1: L1, flights: Flights, clock: Clock
    ) -> None:
        self.epoch = Epoch(database, self._epoch_changed)
        self._fleet = fleet
        self._l1 = l1
        self._flights = flights
        self._clock = clock
        self._linker = Linker(fleet, self.epoch)
        self._link: Link | None = None
        self._linking: asyncio.Task[Link] | None = None
        self._failed: tuple[float, Problem] | None = None
        self._reads: dict[Hashable, object] = {}
        # Who waits for what is being read under a name; one reading answers all of them.
        self.readings: dict[bytes, list[Callable[[Any], None]]] = {}
        self._used_at = -math.inf
        self._looked_at = -math.inf
        self._dozing = False

    @property
    def configured(self) -> bool:
        """Whether there is a store at all."""
        return Engine.DRAGONFLYDB in self._fleet.members

    @property
    def linked(self) -> bool:
        """Whether the store is being listened to."""
        if self._link is None or self._link.channel.closed:
            return False
        if self._fleet.members.get(Engine.DRAGONFLYDB) is not self._link.member:
            self.unlink()
            return False
        return True

    def name(self, key: Key) -> bytes:
        """What the key is called now."""
        return key.at(self.epoch.number)

    def reading(self, name: Hashable) -> object:
        """A read begins: its token is good until somebody writes the key."""
        token = self._reads[name] = object()
        return token

    def unchanged(self, name: Hashable, token: object) -> bool:
        """A read is over: whether what it saw may be remembered."""
        if self._reads.get(name) is not token:
            return False
        del self._reads[name]
        return True

    def touched(self, name: Hashable) -> None:
        """Somebody wrote this key: nothing that was read of it before may be remembered."""
        self._l1.drop(name)
        self._reads.pop(name, None)
        self._flights.forget(name)
        if isinstance(name, bytes):
            self.readings.pop(name, None)

    async def ask(
        self, *commands: Sequence[Word], deadline: Deadline, seconds: float = STORE_SECONDS
    ) -> list[Any]:
        """The replies to commands that leave together, within `seconds`.

        Raises StoreAway; DeadlineExceeded when the caller's own time is over; StoreFull,
        BulkheadFull and QueryRejected from a store that is well.
        """
        link = await self.link(deadline)
        self._used_at = self._clock()
        try:
            return await link.ask(*commands, deadline=deadline.earlier(seconds))
        except _WELL:
            raise
        except (DeadlineExceeded, Unavailable) as problem:
            raise _away(problem, deadline) from problem

    def begin(self, packed: bytes, count: int, seconds: float, told: Told) -> bool:
        """As `ask` without a task; False where it has to be awaited: nothing was sent then.

        `packed` is `count` commands as the wire has them (`words`). `told` gets the replies, or
        the Problem (`fallen`).
        """
        link = self._link
        if link is None or self._dozing or not self.linked:
            return False
        try:
            begun = link.begin(packed, count, seconds, told)
        except BreakerOpen:
            return False
        if begun:
            self._used_at = self._clock()
        return begun

    async def link(self, deadline: Deadline, seconds: float = STORE_SECONDS) -> Link:
        """The link, made within `seconds` if there is none, and the first one with more patience.

        Raises StoreAway, or DeadlineExceeded as `ask` does.
        """
        if self._dozing and self.linked:
            await self._flights.join(MARKER, self._look, deadline)
        if self.linked and self._link is not None:
            return self._link
        if not self.configured:
            raise StoreAway(EngineNotConfigured("there is no store", database=Engine.DRAGONFLYDB))
        if self._failed is not None and self._clock() - self._failed[0] < REST_SECONDS:
            raise StoreAway(self._failed[1])
        if self._linking is None or self._linking.done():
            self._linking = asyncio.create_task(self._make_link())
            self._linking.add_done_callback(_retrieved)
        if self._looked_at == -math.inf:
            # Its schema may have to be made first, and nobody has missed the store so far.
            seconds = max(seconds, min(LINK_SECONDS, deadline.remaining() / 2))
        try:
            async with deadline.earlier(seconds).enforced():
                return await asyncio.shield(self._linking)
        except Problem as problem:
            raise _away(problem, deadline) from problem

    def unlink(self) -> None:
        """End the link: the store cannot be believed any more."""
        if self._link is not None:
            self._link.channel.close()

    async def look(self) -> None:
        """Once a second: learn the epoch, and whether the store's end of the link is there."""
        now = self._clock()
        idle = now - self._used_at > IDLE_SECONDS
        if idle and now - self._looked_at < DOZE_SECONDS:
            self._dozing = True
        elif self.linked:
            await self._look()

    async def _look(self) -> None:
        link = self._link
        deadline = Deadline.after(LOOK_SECONDS, self._clock)
        try:
            if link is not None:
                held = (await link.ask(("GET", MARKER), deadline=deadline))[0]
                await self.epoch.kept(deadline)
                marker = decode(held)
                if marker is not None and marker.epoch > self.epoch.number:
                    # Others of this store know of more than this sidecar's PostgreSQL does.
                    self.unlink()
        except Problem as problem:
            LOG.debug("the look at the store's epoch: %s", problem)
        self._looked_at, self._dozing = self._clock(), False

    async def close(self) -> None:
        """End the link and what is under way."""
        if self._linking is not None:
            self._linking.cancel()
            await asyncio.gather(self._linking, return_exceptions=True)
        self.unlink()

    async def _make_link(self) -> Link:
        try:
            async with Deadline.after(LINK_SECONDS, self._clock).enforced():
                link = await self._linker.make(Deadline.after(LINK_SECONDS, self._clock))
        except Problem as problem:
            self._failed = self._clock(), problem
            raise
        self._failed = None
        self._looked_at = self._used_at = self._clock()
        # What was written while the store was away is only here, and what came after is not.
        self._forget()
        link.channel.on_push = self._told
        link.channel.on_end = self._on_end(link)
        self._link = link
        return link

    def _on_end(self, link: Link) -> Callable[[], None]:
        def ended() -> None:
            if self._link is link:
                self._link = None
                self._forget()

        return ended

    def _told(self, push: list[Any]) -> None:
        """The server says which keys others changed; None is all of them."""
        if push[0] != b"invalidate":
            return
        if push[1] is None:
            self._forget()
        else:
            for name in push[1]:
                self.touched(name)

    def _epoch_changed(self, foreign: bool) -> None:
        # Where only this sidecar raised it, its own newest writes still hold.
        self._l1.clear(pinned=foreign)
        self._begin_anew()

    def _forget(self) -> None:
        self._l1.clear()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Nothing that is being read now is what a later caller may get."""
        self._reads.clear()
        self.readings.clear()
        self._flights.clear()


def _away(problem: Problem, deadline: Deadline) -> StoreAway:
    # Where the caller's own time is over there is none left to fall back in.
    deadline.remaining()
    return StoreAway(problem)


def _retrieved(task: asyncio.Task[Link]) -> None:
    if not task.cancelled():
        task.exception()
