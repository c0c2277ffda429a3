"""Which instances serve, and which routes lead where, for as long as somebody says so.

    members   who is in a group, as every place tells of it
    held      the groups in the store, which is where they are
    noted     what was heard while the store was away, in PostgreSQL

A service is a group of instances, a route a group of one, and the services' names are a group
too. While the store is away heartbeats are noted in PostgreSQL, and reads add to that what this
sidecar remembers; without PostgreSQL it remembers for ten times the ttl.
"""

import contextlib
import logging
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from plan2_contract.engines import Engine
from plan2_sidecar.cache.shared import StoreAway
from plan2_sidecar.cache.tiers import Tiers
from plan2_sidecar.database import Database
from plan2_sidecar.deadline import Clock, Deadline
from plan2_sidecar.errors import DeadlineExceeded, Problem, Unavailable
from plan2_sidecar.registry import held
from plan2_sidecar.registry.held import Held
from plan2_sidecar.registry.members import Member, aged, merged
from plan2_sidecar.registry.noted import DROPPED_MS, Noted
from plan2_sidecar.settled import SETTLE_SECONDS, settled
from plan2_sidecar.store import Store

LOG = logging.getLogger(__name__)

__all__ = ["Member", "Registry", "Told", "Written"]

REMEMBERED_GROUPS: Final = 1000
STALE_TIMES: Final = 10
NOTED_SECONDS: Final = 0.5
PURGE_SECONDS: Final = 300.0
L1_SOURCE: Final = "l1"
_SERVICES: Final = "services"


@dataclass(frozen=True, slots=True)
class Told:
    """Who is in a group, and where that was read. `degraded`: the store could not be asked."""

    members: list[Member]
    source: str
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A word that was taken. `degraded`: noted, because the store could not be reached."""

    source: str = Engine.DRAGONFLYDB.value
    degraded: bool = False


class Registry:
    """A part of the sidecar: the calls, and the purge of notes whose time is over."""

    def __init__(
        self,
        store: Store,
        tiers: Tiers,
        database: Database,
        clock: Clock = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._held = Held(tiers.shared, store)
        self._noted = Noted(database)
        self._tiers = tiers
        self._clock = clock
        self._remembered: OrderedDict[str, tuple[float, list[Member]]] = OrderedDict()
        self._said: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        # Until then there may be notes that the store knows nothing of.
        self._noted_until = -math.inf
        self._asked_in_epoch: int | None = None
        self._next_purge = clock() + PURGE_SECONDS * chance()

    async def register(
        self, service: str, instance: str, body: bytes, ttl_seconds: int, deadline: Deadline
    ) -> Written:
        """An instance is alive for `ttl_seconds`; raises Problem."""
        group = _service(service)
        written = await self._beat(group, instance, body, ttl_seconds, deadline)
        await self._beat(_SERVICES, service, b"", ttl_seconds, deadline)
        return written

    async def deregister(self, service: str, instance: str, deadline: Deadline) -> Written:
        """An instance is gone; raises Problem."""
        return await self._drop(_service(service), instance, deadline)

    async def instances(self, service: str, deadline: Deadline) -> Told:
        """The instances of a service; raises Problem when nobody can tell."""
        return await self._members(_service(service), deadline)

    async def services(
        self, after: str | None, limit: int, deadline: Deadline
    ) -> tuple[list[tuple[str, Told]], str | None]:
        """At most `limit` services that come after `after`, and the last name if there are more."""
        told = await self._members(_SERVICES, deadline)
        names = [one.name for one in told.members if after is None or one.name > after]
        shown = names[:limit]
        groups = await self._groups([_service(name) for name in shown], deadline)
        services = [(name, each) for name, each in zip(shown, groups, strict=True) if each.members]
        return services, shown[-1] if len(names) > limit else None

    async def put_route(
        self, route: str, target: bytes, ttl_seconds: int, deadline: Deadline
    ) -> Written:
        """A route leads to `target`, JSON, for `ttl_seconds`; raises Problem."""
        return await self._beat(_route(route), "", target, ttl_seconds, deadline)

    async def route(self, route: str, deadline: Deadline) -> Told:
        """One member, or none; raises Problem when nobody can tell."""
        return await self._members(_route(route), deadline)

    async def delete_route(self, route: str, deadline: Deadline) -> Written:
        """A route leads nowhere; raises Problem."""
        return await self._drop(_route(route), "", deadline)

    async def look(self) -> None:
        """Purge notes that are over, where this sidecar made some."""
        now = self._clock()
        if now >= self._next_purge and self._noted_until > -math.inf:
            self._next_purge = now + PURGE_SECONDS
            try:
                await self._noted.purge(Deadline.after(SETTLE_SECONDS, self._clock))
            except Problem as problem:
                LOG.info("notes of the registry are purged later: %s", problem.detail)

    async def close(self) -> None:
        """Nothing is kept here that others do not have."""

    async def _beat(
        self, group: str, member: str, body: bytes, ttl_seconds: int, deadline: Deadline
    ) -> Written:
        ttl_ms = ttl_seconds * 1000
        try:
            await self._held.beat(group, member, body, ttl_ms, deadline)
        except (StoreAway, Unavailable, DeadlineExceeded) as problem:
            self._require_another(problem, deadline)
            await self._noted.beat(group, member, body, ttl_ms, deadline)
            self._noted_until = max(self._noted_until, self._clock() + ttl_seconds)
            if self._said.get((group, member)) == body:
                # The store says the same of it, should it be back.
                return self._noted_there()
            return await settled(self._told_apart(group), deadline)
        self._said[group, member] = body
        self._said.move_to_end((group, member))
        if len(self._said) > REMEMBERED_GROUPS:
            self._said.popitem(last=False)
        return Written()

    async def _drop(self, group: str, member: str, deadline: Deadline) -> Written:
        self._remember_without(group, member)
        self._said.pop((group, member), None)
        try:
            await self._held.drop(group, member, deadline)
        except (StoreAway, Unavailable, DeadlineExceeded) as problem:
            self._require_another(problem, deadline)
            await self._noted.drop(group, member, deadline)
            self._noted_until = max(self._noted_until, self._clock() + DROPPED_MS / 1000)
            return await settled(self._told_apart(group), deadline)
        if self._noted.configured:
            # Noted by any sidecar while the store was away; should this fail, its ttl ends it.
            with contextlib.suppress(Problem):
                await self._noted.forget(group, member, deadline.earlier(NOTED_SECONDS))
        return Written()

    async def _told_apart(self, group: str) -> Written:
        """What the store has of the group is older than the note, and must not be read again."""
        if self._tiers.configured:
            await self._tiers.delete(held.key(group), Deadline.after(SETTLE_SECONDS))
        return self._noted_there()

    def _noted_there(self) -> Written:
        return Written(Engine.POSTGRESQL.value, degraded=self._tiers.configured)

    async def _members(self, group: str, deadline: Deadline) -> Told:
        return (await self._groups([group], deadline))[0]

    async def _groups(self, groups: Sequence[str], deadline: Deadline) -> list[Told]:
        if fresh := self._fresh(groups):
            return fresh
        shared = self._tiers.shared
        try:
            await shared.link(deadline)
            names = [shared.name(held.key(group)) for group in groups]
            tokens = [shared.reading(name) for name in names]
            found = await self._held.members(groups, deadline)
        except (StoreAway, Unavailable, DeadlineExceeded) as problem:
            away = _problem(problem, deadline)
            return [await self._without_store(group, away, deadline) for group in groups]
        now = self._clock()
        told = []
        for group, name, token, members in zip(groups, names, tokens, found, strict=True):
            alive = merged(members, await self._also_noted(group, members, deadline))
            self._remember(group, alive)
            if shared.unchanged(name, token):
                left = min((one.left_ms for one in alive), default=1000) / 1000
                self._tiers.l1.put(name, b"", expires_at=now + left)
            told.append(Told(alive, Engine.DRAGONFLYDB.value))
        return told

    def _fresh(self, groups: Sequence[str]) -> list[Told]:
        """What was read a moment ago, and nobody has changed since."""
        shared, told = self._tiers.shared, []
        if not shared.linked:
            return []
        for group in groups:
            remembered = self._remembered.get(group)
            if remembered is None or self._tiers.l1.get(shared.name(held.key(group))) is None:
                return []
            told.append(Told(self._aged(remembered), L1_SOURCE))
        return told

    async def _also_noted(
        self, group: str, members: list[Member], deadline: Deadline
    ) -> list[Member]:
        """Notes, where there may be some: after an outage, or where the store knows nobody."""
        if not self._noted.configured:
            return []
        brief = deadline.earlier(NOTED_SECONDS)
        try:
            await self._learn_of_notes(brief)
            if members and self._clock() >= self._noted_until:
                return []
            return await self._noted.members(group, brief)
        except Problem:
            return []

    async def _learn_of_notes(self, deadline: Deadline) -> None:
        """Ask once in each epoch: whoever noted what the store missed has raised it."""
        epoch = self._tiers.shared.epoch.number
        if epoch == self._asked_in_epoch:
            return
        left_ms = await self._noted.longest_ms(deadline)
        if left_ms is not None:
            self._noted_until = max(self._noted_until, self._clock() + left_ms / 1000)
        self._asked_in_epoch = epoch

    async def _without_store(self, group: str, away: Problem, deadline: Deadline) -> Told:
        """What was noted and what is remembered; raises `away` where neither says anything."""
        notes, source = None, L1_SOURCE
        if self._noted.configured:
            try:
                notes = await self._noted.members(group, deadline)
                source = Engine.POSTGRESQL.value
            except (Unavailable, DeadlineExceeded) as problem:
                away = away if self._tiers.configured else problem
        remembered = self._remembered.get(group)
        stale = [] if remembered is None else self._aged(remembered, stale=notes is None)
        alive = merged(stale, notes or [])
        if notes is None and remembered is None:
            raise away
        if self._tiers.configured and not alive and remembered is None:
            # Those who said so before the store went away have not said it again yet.
            raise away
        return Told(alive, source, degraded=self._tiers.configured)

    def _remember(self, group: str, members: list[Member]) -> None:
        self._remembered[group] = self._clock(), members
        self._remembered.move_to_end(group)
        if len(self._remembered) > REMEMBERED_GROUPS:
            self._remembered.popitem(last=False)

    def _remember_without(self, group: str, member: str) -> None:
        remembered = self._remembered.get(group)
        if remembered is not None:
            at, members = remembered
            self._remembered[group] = at, [one for one in members if one.name != member]

    def _aged(self, remembered: tuple[float, list[Member]], *, stale: bool = False) -> list[Member]:
        passed_ms = int((self._clock() - remembered[0]) * 1000)
        return aged(remembered[1], passed_ms, STALE_TIMES if stale else 1)

    def _require_another(self, problem: StoreAway | Problem, deadline: Deadline) -> None:
        away = _problem(problem, deadline)
        if not self._noted.configured:
            raise away


def _problem(problem: StoreAway | Problem, deadline: Deadline) -> Problem:
    # Where the caller's own time is over there is none left to fall back in.
    deadline.remaining()
    return problem.problem if isinstance(problem, StoreAway) else problem


def _service(name: str) -> str:
    return f"service:{name}"


def _route(name: str) -> str:
    return f"route:{name}"
