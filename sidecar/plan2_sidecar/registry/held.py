"""The registry in the store: a hash for each group, its members' names to their bodies.

Moments are the store's own, so that the sidecars' clocks do not matter. A member whose time is
over is not shown, and goes with the next heartbeat of its group; a group goes with its last.
"""

from collections.abc import Sequence
from typing import Any, Final

from plan2_sidecar.cache.keys import Key, Kind
from plan2_sidecar.cache.shared import Shared
from plan2_sidecar.deadline import Deadline
from plan2_sidecar.registry.members import Member
from plan2_sidecar.store import Script, Store

# HGETALL, TIME and the arithmetic have the same forms on Redis and on Dragonfly.
_BEAT: Final = Script("""
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local ttl = tonumber(ARGV[3])
local known = redis.call('HGETALL', KEYS[1])
local last = now + ttl
for i = 1, #known, 2 do
  local ends = tonumber(string.match(known[i + 1], '^%d+'))
  if not ends or ends <= now then
    redis.call('HDEL', KEYS[1], known[i])
  elseif known[i] ~= ARGV[1] and ends > last then
    last = ends
  end
end
redis.call('HSET', KEYS[1], ARGV[1],
  string.format('%.0f %.0f ', now + ttl, ttl) .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', last - now))
return 1
""")


class Held:
    """The groups in the store; every method raises StoreAway or Problem."""

    def __init__(self, shared: Shared, store: Store) -> None:
        self._shared = shared
        self._store = store

    async def beat(
        self, group: str, member: str, body: bytes, ttl_ms: int, deadline: Deadline
    ) -> None:
        """`member` is alive, for `ttl_ms` from now."""
        await self._shared.link(deadline)
        name = self._shared.name(key(group))
        try:
            await self._store.run(_BEAT, name, [member, body, ttl_ms], deadline)
        finally:
            self._shared.touched(name)

    async def drop(self, group: str, member: str, deadline: Deadline) -> None:
        """`member` is gone."""
        await self._shared.link(deadline)
        name = self._shared.name(key(group))
        try:
            await self._shared.ask(("HDEL", name, member), deadline=deadline)
        finally:
            self._shared.touched(name)

    async def members(self, groups: Sequence[str], deadline: Deadline) -> list[list[Member]]:
        """Who lives in each group."""
        await self._shared.link(deadline)
        commands = [("HGETALL", self._shared.name(key(group))) for group in groups]
        time, *replies = await self._shared.ask(("TIME",), *commands, deadline=deadline)
        now_ms = int(time[0]) * 1000 + int(time[1]) // 1000
        return [_members(reply, now_ms) for reply in replies]


def key(group: str) -> Key:
    """Where a group is."""
    return Key(Kind.REGISTRY, group)


def _members(reply: Any, now_ms: int) -> list[Member]:
    pairs = reply.items() if isinstance(reply, dict) else _pairs(reply)
    found = (_member(name, held, now_ms) for name, held in pairs)
    return [member for member in found if member is not None and member.left_ms > 0]


def _pairs(reply: Sequence[bytes]) -> Sequence[tuple[bytes, bytes]]:
    return list(zip(reply[::2], reply[1::2], strict=True))


def _member(name: bytes, held: bytes, now_ms: int) -> Member | None:
    parts = held.split(b" ", 2)
    if len(parts) < 3 or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    return Member(name.decode(), parts[2], int(parts[0]) - now_ms, int(parts[1]))
