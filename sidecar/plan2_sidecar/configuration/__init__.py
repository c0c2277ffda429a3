"""Configuration by user and key: PostgreSQL is the truth, reads come from the caches.

    truth     the value, its version and its history, in one transaction
    copies    the history in ClickHouse

A value that was put in the cache alone stands before the stored one until its ttl is over or
the stored one is changed. It has no version and is in no history.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

from plan2_contract import schema
from plan2_sidecar.cache import tiers
from plan2_sidecar.cache.keys import Key, Kind
from plan2_sidecar.cache.levels import L1_LEVEL, STORE_LEVEL
from plan2_sidecar.cache.levels import Read as LevelRead
from plan2_sidecar.cache.shared import StoreAway
from plan2_sidecar.configuration import truth
from plan2_sidecar.configuration.copies import Copies
from plan2_sidecar.configuration.truth import ANYTHING, Change, Mismatch, Precondition, Stored
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import ConnectionLost, DeadlineExceeded, Problem, VersionMismatch
from plan2_sidecar.settled import SETTLE_SECONDS, settled

if TYPE_CHECKING:
    from plan2_sidecar.engines.postgresql import Transaction

__all__ = ["ANYTHING", "Change", "Configuration", "Precondition", "Read", "Written"]

# Changes drop it everywhere at once; this bounds what a sidecar that died in between leaves.
FRESH_MS: Final = 30_000
_NEWEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Read:
    """A value as JSON text, None where there is none. `version` is None where it has none.

    `origin` says which of the two it is, `source` where this copy was read. `degraded`: it may
    be stale, or comes from further away than it should.
    """

    value: str | None
    version: int | None
    origin: Literal["cache", "postgresql"]
    source: str
    degraded: bool = False
    fallback_from: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A write that holds. `degraded`: the store could not be told, and starts anew."""

    version: int
    degraded: bool = False


class Configuration:
    """The calls; names are checked by the caller, values are JSON text."""

    def __init__(self, database: Database, caches: tiers.Tiers, copies: Copies) -> None:
        self._database = database
        self._tiers = caches
        self._copies = copies

    async def get(self, user: str, key: str, deadline: Deadline) -> Read:
        """The value that holds now; a stale one says so. Raises Problem."""
        cached, source, away = await self._in_front(_cached_key(user, key), deadline)
        away = away and self._tiers.configured
        if cached is not None:
            return Read(cached.decode(), None, "cache", source, away, _from(away))
        return await self._stored(user, key, deadline, away=away)

    async def put(
        self,
        user: str,
        key: str,
        value: str,
        deadline: Deadline,
        *,
        wanted: Precondition = ANYTHING,
        actor: str,
    ) -> Written:
        """Store the value; raises VersionMismatch where `wanted` does not hold, or Problem."""
        return await self._write(user, key, value, wanted, actor, deadline)

    async def delete(
        self,
        user: str,
        key: str,
        deadline: Deadline,
        *,
        wanted: Precondition = ANYTHING,
        actor: str,
    ) -> Written:
        """Forget the value, not its history; version 0 where there was none. Raises as `put`."""
        return await self._write(user, key, None, wanted, actor, deadline)

    async def cache(
        self, user: str, key: str, value: str, ttl_seconds: int | None, deadline: Deadline
    ) -> tiers.Written:
        """Put a value before the stored one; raises Problem."""
        return await self._tiers.put(_cached_key(user, key), value.encode(), ttl_seconds, deadline)

    async def log_change(
        self,
        user: str,
        key: str,
        old: str | None,
        new: str | None,
        deadline: Deadline,
        *,
        actor: str,
    ) -> None:
        """Append to the history, and change nothing; raises Problem."""

        async def work(transaction: "Transaction") -> None:
            await truth.log(transaction, user, key, old, new, actor)

        await self._database.run(work, deadline, needs=schema.CONFIGURATION)
        self._copies.wanted()

    async def history(
        self, user: str, key: str, before: int | None, limit: int, deadline: Deadline
    ) -> Sequence[Change]:
        """At most `limit` changes older than the id `before`, newest first. Raises Problem."""
        top = _NEWEST if before is None else before

        async def work(transaction: "Transaction") -> Sequence[Change]:
            return await truth.history(transaction, user, key, top, limit)

        return await self._database.read(work, deadline, needs=schema.CONFIGURATION)

    async def _write(
        self,
        user: str,
        key: str,
        value: str | None,
        wanted: Precondition,
        actor: str,
        deadline: Deadline,
    ) -> Written:
        async def work(transaction: "Transaction") -> Stored | Mismatch | None:
            return await truth.write(transaction, user, key, value, wanted, actor)

        async def write_and_tell() -> Written:
            try:
                outcome = await self._database.run(work, deadline, needs=schema.CONFIGURATION)
            except (ConnectionLost, DeadlineExceeded):
                # Whether it was written is not known, so the caches must not know either.
                with contextlib.suppress(Problem):
                    await self._forget(user, key)
                raise
            if isinstance(outcome, Mismatch):
                raise VersionMismatch(_said(outcome))
            degraded = await self._forget(user, key)
            if outcome is None:
                return Written(0, degraded)
            self._copies.wanted()
            return Written(outcome.version, degraded)

        return await settled(write_and_tell(), deadline)

    async def _forget(self, user: str, key: str) -> bool:
        """Take the key out of the caches; whether the store could not be told."""
        deadline = Deadline.after(SETTLE_SECONDS)
        cached = await self._tiers.delete(_cached_key(user, key), deadline)
        stored = await self._tiers.delete(_stored_key(user, key), deadline)
        return self._tiers.configured and (cached.degraded or stored.degraded)

    async def _in_front(self, key: Key, deadline: Deadline) -> tuple[bytes | None, str, bool]:
        """The value in the cache alone, where it was read, and whether the store is away.

        That there is none is remembered as well: it is so nearly always.
        """
        levels = self._tiers.levels
        near = levels.near(key)
        if near is not None:
            return near.value, L1_LEVEL, False

        def keep(read: LevelRead) -> None:
            self._tiers.l1.put(read.name, read.value, expires_at=read.expires_at)

        try:
            read = await levels.far(key, deadline, keep)
        except StoreAway:
            found = await self._tiers.get(key, deadline)
            return (None if found is None else found.value), L1_LEVEL, True
        return read.value, STORE_LEVEL, False

    async def _stored(self, user: str, key: str, deadline: Deadline, *, away: bool) -> Read:
        async def load() -> bytes:
            async def work(transaction: "Transaction") -> Stored:
                return await truth.read(transaction, user, key)

            return _packed(await self._database.read(work, deadline, needs=schema.CONFIGURATION))

        loaded = await self._tiers.load(_stored_key(user, key), FRESH_MS, load, deadline)
        stored = _unpacked(loaded.value)
        stale = loaded.state == "stale"
        return Read(
            stored.value,
            stored.version,
            "postgresql",
            loaded.source or "postgresql",
            away or stale,
            _from(away) or ("postgresql" if stale and loaded.degraded else None),
        )


def _from(away: bool) -> str | None:
    return "dragonflydb" if away else None


def _said(mismatch: Mismatch) -> str:
    return f"the version is {mismatch.version}" if mismatch.exists else "there is no value"


def _stored_key(user: str, key: str) -> Key:
    return Key(Kind.CONFIGURATION, _name(user, key))


def _cached_key(user: str, key: str) -> Key:
    return Key(Kind.CONFIGURATION, f"cached:{_name(user, key)}")


def _name(user: str, key: str) -> str:
    """No two pairs share one: the first slash is the one between them, and no colon is before."""
    return f"{quote(user, safe='')}/{key}"


def _packed(stored: Stored) -> bytes:
    return f"{stored.version} {stored.value or ''}".encode()


def _unpacked(content: bytes) -> Stored:
    version, _, value = content.decode().partition(" ")
    return Stored(value or None, int(version))
