"""How a value that was read through stands in the store, and what holds its place meanwhile.

    lease   ten bytes: somebody is reading the value where its truth is
    value   ten bytes, its ttl, the value

The ten bytes differ each time. A value is filled in only where those that its reader saw still
stand, so what was read before a write is never kept after it. JSON begins with neither.
"""

import secrets
from dataclasses import dataclass
from typing import Final

# Dragonfly keeps nothing longer.
LONGEST_SECONDS: Final = 268_435_455
STALE_WHILE_REVALIDATE: Final = 1
STALE_IF_ERROR: Final = 10

_LEASE: Final = b"\x00L"
_VALUE: Final = b"\x00V"
_TAG_LENGTH: Final = 10
_HEAD_LENGTH: Final = _TAG_LENGTH + 8

FILL: Final = f"""
if redis.call('GETRANGE', KEYS[1], 0, {_TAG_LENGTH - 1}) ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""
"""Arguments: the tag that must stand there, what to put, its milliseconds or 0."""

RELEASE: Final = f"""
if redis.call('GETRANGE', KEYS[1], 0, {_TAG_LENGTH - 1}) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
"""Takes away what the tag stands for."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A value with its age; `tag` stands for it."""

    value: bytes
    ttl_ms: int
    age_ms: float
    tag: bytes

    def fresh(self, ttl_ms: int) -> bool:
        """Whether it is young enough for a reader who allows `ttl_ms`."""
        return self.age_ms < min(ttl_ms, self.ttl_ms)

    def revalidates(self, ttl_ms: int) -> bool:
        """Whether it may be given out while a newer one is read."""
        return self.age_ms < min(ttl_ms, self.ttl_ms) * (1 + STALE_WHILE_REVALIDATE)

    def consoles(self, ttl_ms: int) -> bool:
        """Whether it may be given out when no newer one can be read."""
        return self.age_ms < min(ttl_ms, self.ttl_ms) * (1 + STALE_IF_ERROR)


def lease() -> bytes:
    """A place holder that is nobody else's."""
    return _LEASE + secrets.token_bytes(_TAG_LENGTH - len(_LEASE))


def is_lease(held: bytes) -> bool:
    """Whether a value is being read."""
    return held.startswith(_LEASE)


def tag(held: bytes) -> bytes:
    """What `FILL` compares."""
    return held[:_TAG_LENGTH]


def encode(value: bytes, ttl_ms: int) -> bytes:
    """The value as it stands in the store, for `total_ms` milliseconds."""
    unique = secrets.token_bytes(_TAG_LENGTH - len(_VALUE))
    return b"".join((_VALUE, unique, ttl_ms.to_bytes(8), value))


def total_ms(ttl_ms: int) -> int:
    """How long the store keeps a value, stale at the end."""
    return min(ttl_ms * (1 + STALE_IF_ERROR), LONGEST_SECONDS * 1000)


def decode(held: bytes, left_ms: float) -> Kept | None:
    """The value that has `left_ms` to live; None where it is none of ours."""
    if not held.startswith(_VALUE) or len(held) < _HEAD_LENGTH:
        return None
    ttl_ms = int.from_bytes(held[_TAG_LENGTH:_HEAD_LENGTH])
    age_ms = max(0.0, total_ms(ttl_ms) - left_ms)
    return Kept(held[_HEAD_LENGTH:], ttl_ms, age_ms, tag(held))
