"""Sessions by id. A durable one is PostgreSQL's, copied to the store; the others the store's alone.

A write to PostgreSQL is followed by taking the copy away, never by putting another: two writers
may come to the store in another order than to PostgreSQL. A store that could not be told starts
anew, so that a session deleted while it was away stays deleted.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from plan2_contract import schema
from plan2_contract.engines import Engine
from plan2_sidecar.cache.keys import Key, Kind
from plan2_sidecar.cache.shared import StoreAway
from plan2_sidecar.cache.tiers import Found, Tiers
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import (
    ConnectionLost,
    DeadlineExceeded,
    EngineNotConfigured,
    EngineUnavailable,
    Problem,
)
from plan2_sidecar.settled import SETTLE_SECONDS, settled

if TYPE_CHECKING:
    from plan2_sidecar.engines.postgresql import Transaction

LOG = logging.getLogger(__name__)

_TRUTH: Final = Engine.POSTGRESQL.value
_STORE: Final = Engine.DRAGONFLYDB.value
# The first byte of a copy says whose session it is.
_DURABLE: Final = b"d"
_VOLATILE: Final = b"v"

PURGE_SECONDS: Final = 300.0
PURGE_ROWS: Final = 500

_PUT: Final = """
    INSERT INTO plan2.session (id, data, expires_at)
    VALUES ($1, $2, now() + make_interval(secs => $3::text::int))
    ON CONFLICT (id) DO UPDATE SET data = EXCLUDED.data, expires_at = EXCLUDED.expires_at
"""
_GET: Final = """
    SELECT data, floor(extract(epoch FROM expires_at - now()) * 1000)::bigint AS left_ms
    FROM plan2.session WHERE id = $1 AND expires_at > now()
"""
_DELETE: Final = "DELETE FROM plan2.session WHERE id = $1"
_PURGE: Final = f"""
    DELETE FROM plan2.session WHERE id IN (
        SELECT id FROM plan2.session WHERE expires_at < now()
        ORDER BY expires_at LIMIT {PURGE_ROWS} FOR UPDATE SKIP LOCKED
    )
"""


class Session(NamedTuple):
    """`data` is JSON as it was written; `ttl_seconds` what is left, rounded up."""

    data: bytes
    ttl_seconds: int
    source: str
    degraded: bool = False


class Absent(NamedTuple):
    """There is none. `degraded`: one that is not durable may be where nobody can look."""

    source: str
    degraded: bool = False


class Written(NamedTuple):
    """A write that holds, and where. `degraded`: the store could not be told, and starts anew."""

    source: str
    degraded: bool = False


class Sessions:
    """A part of the sidecar: the calls, and the purge of rows whose time is over.

    `sweeps`: purge even before this sidecar was asked for a durable session.
    """

    def __init__(
        self,
        database: Database,
        tiers: Tiers,
        clock: Clock = time.monotonic,
        chance: Callable[[], float] = random.random,
        *,
        sweeps: bool,
    ) -> None:
        self._database = database
        self._tiers = tiers
        self._clock = clock
        self._chance = chance
        self._sweeps = sweeps
        self._next_purge = clock() + PURGE_SECONDS * chance()

    async def get(
        self, identity: str, deadline: Deadline, *, missed: bool | StoreAway = False
    ) -> Session | Absent:
        """The session, from the store or from PostgreSQL; raises Problem when neither can tell.

        `missed` is how `begin_get` ended: True where the store has none.
        """
        if not self._tiers.configured:
            row = await self._read(identity, deadline)
            return Absent(_TRUTH) if row is None else _session(Found(*_whole(row), _TRUTH))
        if not self._database.configured:
            found, missed = await self._tiers.find(_key(identity), deadline)
            if found is None and missed:
                raise EngineUnavailable("the store is away", database=Engine.DRAGONFLYDB)
            return Absent(_STORE) if found is None else _session(found)

        async def load() -> tuple[bytes, float] | None:
            return await self._read(identity, deadline)

        found = await self._tiers.through(_key(identity), load, deadline, missed=missed)
        if found is None:
            return Absent(_TRUTH, degraded=not self._tiers.shared.linked)
        return _session(found)

    def look_here(self, identity: str) -> tuple[bytes, Session | None] | None:
        """What it is called in the store, and the session where `get` finds it in this process.

        None where `get` is to be awaited.
        """
        near = self._tiers.look_here(_key(identity))
        if near is None:
            return None
        name, found = near
        return name, None if found is None else _session(found)

    def begin_get(self, name: bytes, told: Callable[[Session | Exception | None], None]) -> bool:
        """`get` from the store without a task, behind `look_here`; False where it is to be awaited.

        `told` gets the session; None or StoreAway, which `get` goes on from; or a Problem.
        """

        def over(outcome: Found | Exception | None) -> None:
            told(_session(outcome) if isinstance(outcome, Found) else outcome)

        return self._tiers.begin_find(name, over)

    async def put(
        self, identity: str, data: bytes, ttl_seconds: int, deadline: Deadline, *, durable: bool
    ) -> Written:
        """Keep the session; raises Problem, and then whether it is kept is not known."""
        if durable:
            return await settled(self._put_durable(identity, data, ttl_seconds, deadline), deadline)
        return await settled(self._put_volatile(identity, data, ttl_seconds, deadline), deadline)

    async def delete(self, identity: str, deadline: Deadline) -> Written:
        """Forget the session, for good; raises Problem."""
        return await settled(self._delete(identity, deadline), deadline)

    async def look(self) -> None:
        """Purge what is over, a few rows at a time."""
        if self._clock() < self._next_purge or not (self._sweeps and self._database.configured):
            return
        self._next_purge = self._clock() + PURGE_SECONDS * (0.5 + self._chance())
        try:
            while await self.purge(Deadline.after(SETTLE_SECONDS, self._clock)) == PURGE_ROWS:
                pass
        except Problem as problem:
            LOG.info("sessions that are over are purged later: %s", problem.detail)

    async def close(self) -> None:
        """Nothing is kept here."""

    async def purge(self, deadline: Deadline) -> int:
        """Delete at most PURGE_ROWS rows whose time is over; how many there were."""

        async def work(transaction: Transaction) -> int:
            status: str = await transaction.connection.execute(_PURGE)
            return int(status.rpartition(" ")[2])

        return await self._database.run(work, deadline, needs=schema.SESSIONS)

    async def _read(self, identity: str, deadline: Deadline) -> tuple[bytes, float] | None:
        """The copy as the store would keep it, and the seconds it has left."""
        began = self._clock()

        async def work(transaction: Transaction) -> tuple[bytes, float] | None:
            row = await transaction.connection.fetchrow(_GET, identity)
            return None if row is None else (_DURABLE + row["data"].encode(), row["left_ms"] / 1000)

        found = await self._database.read(work, deadline, needs=schema.SESSIONS)
        if found is None:
            return None
        # Counted from before it was asked, so that no copy outlives the session.
        return found[0], found[1] - (self._clock() - began)

    async def _put_durable(
        self, identity: str, data: bytes, ttl_seconds: int, deadline: Deadline
    ) -> Written:
        await self._run(_PUT, identity, deadline, data.decode(), str(ttl_seconds))
        return Written(_TRUTH, await self._tell(identity))

    async def _put_volatile(
        self, identity: str, data: bytes, ttl_seconds: int, deadline: Deadline
    ) -> Written:
        """An id that was durable must not come back as that once the store is lost."""
        if not self._tiers.configured:
            raise EngineNotConfigured(
                "a session that is not durable needs a store", database=Engine.DRAGONFLYDB
            )
        known = await self._known(identity, deadline)
        if self._database.configured and known != _VOLATILE:
            try:
                await self._run(_DELETE, identity, deadline)
            except Problem:
                if known == _DURABLE:
                    raise
        kept = await self._tiers.put(_key(identity), _VOLATILE + data, ttl_seconds, deadline)
        if kept.degraded:
            # Only this sidecar has it, and only until the store is back.
            await self._tell(identity)
            raise EngineUnavailable("the store is away", database=Engine.DRAGONFLYDB)
        return Written(kept.source)

    async def _delete(self, identity: str, deadline: Deadline) -> Written:
        source = _STORE
        if self._database.configured or not self._tiers.configured:
            try:
                await self._run(_DELETE, identity, deadline)
                source = _TRUTH
            except Problem:
                # Not in PostgreSQL, or so the store knows: then it need not be asked.
                if await self._known(identity, deadline) != _VOLATILE:
                    raise
        return Written(source, await self._tell(identity))

    async def _tell(self, identity: str) -> bool:
        """Take the copy away; whether the store could not be told, and starts anew instead."""
        if not self._tiers.configured:
            return False
        told = await self._tiers.delete(_key(identity), Deadline.after(SETTLE_SECONDS))
        return told.degraded

    async def _known(self, identity: str, deadline: Deadline) -> bytes | None:
        """Whose session it is, as far as the store can tell."""
        if not self._tiers.configured:
            return None
        found = await self._tiers.get(_key(identity), deadline)
        return None if found is None else found.value[:1]

    async def _run(self, statement: str, identity: str, deadline: Deadline, *values: str) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.connection.execute(statement, identity, *values)

        self._sweeps = True
        try:
            await self._database.run(work, deadline, needs=schema.SESSIONS)
        except (ConnectionLost, DeadlineExceeded):
            # Whether it was written is not known, so the store must not know either.
            with contextlib.suppress(Problem):
                await self._tell(identity)
            raise


def _session(found: Found) -> Session:
    return Session(found.value[1:], found.ttl_seconds or 1, found.source, found.degraded)


def _whole(copy: tuple[bytes, float]) -> tuple[bytes, int]:
    return copy[0], max(1, math.ceil(copy[1]))


def _key(identity: str) -> Key:
    return Key(Kind.SESSION, identity)
