"""Answers of queries, kept for as long as a caller allows and no longer than they are true.

Every table of an engine has a token in the store, as has the engine as a whole. An answer's key
holds the tokens of what it is about; a write takes its tables' tokens away, and with them every
answer that held one, in all sidecars. A write that cannot be told apart takes the engine's.
Writes that pass by the API are not seen: `ttlMs` bounds what they leave.
"""

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from plan2_contract.connection import MongoDB, Sql
from plan2_contract.engines import Engine
from plan2_sidecar.cache import tags
from plan2_sidecar.cache.keys import Key, Kind
from plan2_sidecar.cache.shared import StoreAway
from plan2_sidecar.cache.tables import TableReader
from plan2_sidecar.cache.tiers import Tiers
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.engines.base import Background
from plan2_sidecar.errors import DeadlineExceeded, Problem
from plan2_sidecar.fleet import Fleet
from plan2_sidecar.query import Query, Result
from plan2_sidecar.settled import settled

LOG = logging.getLogger(__name__)

# The store itself needs no cache in the store.
UNCACHED: Final = frozenset({Engine.DRAGONFLYDB, Engine.REDIS})
# A write that is done waits so long for the others to be told; they are told in any case.
TELLING_SECONDS: Final = 0.25
AGAIN_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 1.0
# What a token's end costs is one miss for each answer that holds it.
TOKEN_SECONDS: Final = 7 * 24 * 3600

# Held by every answer about the engine, and by those that may be about any of its tables.
_WHOLE: Final = "*"
_ANY: Final = "*any"


class _Head(msgspec.Struct, frozen=True, array_like=True):
    row_count: int
    truncated: bool
    extra: dict[str, Any] | None
    columns: tuple[str, ...] | None


_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
_HEAD: Final = msgspec.json.Decoder(_Head)

Run = Callable[[], Awaitable[tuple[Result, int]]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A result and its past: `cache` is hit, miss or stale; `attempts` 0 when nobody was asked."""

    result: Result
    cache: str
    degraded: bool
    attempts: int


class Answers:
    """The query cache; a part of the sidecar."""

    def __init__(self, fleet: Fleet, tiers: Tiers, clock: Clock) -> None:
        self._fleet = fleet
        self._tiers = tiers
        self._clock = clock
        self._tables = TableReader(fleet, clock)
        self._background = Background()
        self._owed: dict[Key, int] = {}
        self._paying = False
        self._writes: Counter[Engine] = Counter()

    async def answer(
        self, engine: Engine, query: Query, ttl_ms: int, run: Run, deadline: Deadline
    ) -> Answer:
        """The answer to a read, kept or from `run()`; raises what that raises."""
        attempts = 0

        async def load() -> bytes:
            nonlocal attempts
            result, attempts = await run()
            return _encode(result)

        tokens = await self._tokens(engine, query, deadline)
        key = self._key(engine, query, tokens)
        if tokens is None:
            loaded = await self._tiers.load_here(key, ttl_ms, load, deadline)
        else:
            loaded = await self._tiers.load(key, ttl_ms, load, deadline)
        return Answer(_decode(loaded.value), loaded.state, loaded.degraded, attempts)

    async def wrote(self, engine: Engine, query: Query) -> None:
        """A write was done, or may have been: what it changed is no longer answered from here.

        Returns when every sidecar can know, or will without this one's help; never raises.
        """
        if engine in UNCACHED:
            return
        self._writes[engine] += 1
        if not self._tiers.configured:
            return
        deadline = Deadline.after(TELLING_SECONDS, self._clock)
        try:
            keys = await self._written(engine, query, deadline)
        except Exception:
            # The write is done, and that is what its caller must hear.
            LOG.exception("what a write on %s changed cannot be told", engine)
            keys = [self._token_key(engine, _WHOLE)]
        if keys and not await self._tell(keys, deadline):
            self._owed.update(dict.fromkeys(keys, self._writes.total()))
            if not self._paying:
                self._paying = True
                self._background.spawn(self._pay(AGAIN_SECONDS))

    async def told(self, engine: Engine, query: Query) -> None:
        """As `wrote`, to its end even where the caller is cancelled."""
        with contextlib.suppress(DeadlineExceeded):
            await settled(self.wrote(engine, query), Deadline.after(CLOSE_SECONDS, self._clock))

    def wrote_perhaps(self, engine: Engine, query: Query) -> None:
        """As `wrote`, for a write whose outcome nobody knows: now, and when it may have ended."""

        async def twice() -> None:
            await self.wrote(engine, query)
            await asyncio.sleep(RETRY_SECONDS)
            await self.wrote(engine, query)

        self._background.spawn(twice())

    async def look(self) -> None:
        """Once a second: tell what could not be told."""
        if self._owed:
            await self._pay(0)

    async def close(self) -> None:
        """Tell what is still to be told."""
        await self._background.finished(CLOSE_SECONDS)
        await self._tables.close()

    async def _tokens(self, engine: Engine, query: Query, deadline: Deadline) -> list[bytes] | None:
        """The tokens of all it is about; None while writes of others could not be noticed."""
        if self._owed or not self._tiers.configured:
            return None
        whole = await self._token(engine, _WHOLE, deadline)
        if whole is None:
            return None
        known = await self._tables.learnt(engine, whole, deadline)
        about = tags.of(engine, query.query, known, write=False)
        tokens = [whole]
        for tag in sorted(about or {_ANY}):
            token = await self._token(engine, tag, deadline)
            if token is None:
                return None
            tokens.append(token)
        return tokens

    def _key(self, engine: Engine, query: Query, tokens: list[bytes] | None) -> Key:
        # Without the store this sidecar knows of its own writes alone.
        held = [f"{self._writes[engine]}"] if tokens is None else [t.decode() for t in tokens]
        asked = (
            self._place(engine),
            query.query,
            query.params,
            query.read_only,
            query.max_rows,
            held,
        )
        return Key(Kind.QUERY, hashlib.sha256(_ENCODER.encode(asked)).hexdigest())

    def _place(self, engine: Engine) -> list[Any]:
        """Which database: sidecars of two of them may share a store."""
        connection = self._fleet.member(engine).connection
        match connection:
            case MongoDB():
                return [engine.value, connection.uri.rpartition("@")[2], connection.database]
            case Sql():
                return [engine.value, connection.host, connection.port, connection.database]
            case _:
                return [engine.value, connection.host, connection.port]

    async def _token(self, engine: Engine, tag: str, deadline: Deadline) -> bytes | None:
        """The tag's token, made where there is none; None while the store is away."""

        async def make() -> tuple[bytes, float]:
            return secrets.token_hex(12).encode(), TOKEN_SECONDS

        found = await self._tiers.through(self._token_key(engine, tag), make, deadline)
        return None if found is None or found.degraded else found.value

    def _token_key(self, engine: Engine, tag: str) -> Key:
        number = self._tiers.shared.epoch.answers
        return Key(Kind.QUERY, f"token:{number}:{engine.value}:{tag}")

    async def _written(self, engine: Engine, query: Query, deadline: Deadline) -> list[Key]:
        """The tokens a write takes away; none where no answer can hold one."""
        everything = [self._token_key(engine, _WHOLE)]
        try:
            found, away = await self._tiers.find(everything[0], deadline)
        except Problem:
            return everything
        if found is None:
            # Who makes the token from now on asks the engine after that.
            return everything if away else []
        known = self._tables.known(engine, found.value)
        about = tags.of(engine, query.query, known, write=True)
        if about is None:
            return everything
        return [self._token_key(engine, tag) for tag in sorted({_ANY, *about})]

    async def _tell(self, keys: list[Key], deadline: Deadline) -> bool:
        try:
            await self._tiers.forget(keys, deadline)
        except (StoreAway, Problem) as error:
            LOG.debug("a write could not be told: %s", error)
            return False
        return True

    async def _pay(self, seconds: float) -> None:
        """Tell what is owed; where the store is away, by the number that tokens carry."""
        await asyncio.sleep(seconds)
        self._paying = False
        owed = dict(self._owed)
        deadline = Deadline.after(RETRY_SECONDS, self._clock)
        if owed and not await self._tell(sorted(owed, key=str), deadline):
            try:
                await self._tiers.shared.epoch.bump_answers(deadline)
            except Problem as problem:
                LOG.debug("nor could PostgreSQL note it: %s", problem)
                return
        for key, number in owed.items():
            # Unless another write came meanwhile.
            if self._owed.get(key) == number:
                del self._owed[key]


def _encode(result: Result) -> bytes:
    head = _Head(result.row_count, result.truncated, result.extra, result.columns)
    data = result.data
    rows = bytes(data) if isinstance(data, msgspec.Raw) else _ENCODER.encode(data)
    # JSON on one line has no line feed.
    return b"\n".join((_ENCODER.encode(head), rows))


def _decode(kept: bytes) -> Result:
    first, _, rows = kept.partition(b"\n")
    head = _HEAD.decode(first)
    return Result(
        data=msgspec.Raw(rows),
        row_count=head.row_count,
        truncated=head.truncated,
        extra=head.extra,
        columns=head.columns,
    )
