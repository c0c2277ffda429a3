"""The level in this process: bytes by name, bounded in bytes, the least recently used goes first.

An entry is fresh for a second at most, for other sidecars may change what it copies; those
written while the store was away are `pinned`, as they exist nowhere else. Clock and chance are
passed in.
"""

import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from plan2_sidecar.deadline import Clock

FRESH_SECONDS: Final = 1.0
# Entries made together must not all end together.
JITTER: Final = 0.1
# What an entry costs besides its bytes: the objects, the dict's slot.
OVERHEAD_BYTES: Final = 400
# One entry may not push everything else out.
LARGEST_SHARE: Final = 0.25


@dataclass(slots=True)
class Entry:
    """`value` None says that there is none. Times are on the level's clock, in seconds.

    `born` is when a value that was read through was read.
    """

    value: bytes | None
    fresh_until: float
    expires_at: float
    size: int
    pinned: bool
    born: float

    def ttl_seconds(self, now: float) -> int | None:
        """Whole seconds left, rounded up; None where it has no end."""
        return None if self.expires_at == math.inf else max(1, math.ceil(self.expires_at - now))


class L1:
    """The entries. `bytes` never exceeds `max_bytes`."""

    def __init__(
        self,
        max_bytes: int,
        clock: Clock = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._clock = clock
        self._chance = chance
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: Hashable) -> Entry | None:
        """The entry while it is fresh."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        if self._clock() >= entry.fresh_until:
            self._remove(name)
            return None
        self._entries.move_to_end(name)
        return entry

    def put(
        self,
        name: Hashable,
        value: bytes | None,
        *,
        expires_at: float = math.inf,
        fresh_seconds: float = FRESH_SECONDS,
        pinned: bool = False,
        born: float = math.inf,
    ) -> bool:
        """Keep it; False when it is too large to be kept. `pinned` is fresh until it expires."""
        self._remove(name)
        size = OVERHEAD_BYTES + (0 if value is None else len(value)) + _length(name)
        if size > self.max_bytes * LARGEST_SHARE:
            return False
        fresh_until = expires_at
        if not pinned:
            seconds = fresh_seconds * (1 - JITTER * self._chance())
            fresh_until = min(expires_at, self._clock() + seconds)
        while self.bytes + size > self.max_bytes:
            self._remove(next(iter(self._entries)))
        self._entries[name] = Entry(value, fresh_until, expires_at, size, pinned, born)
        self.bytes += size
        return True

    def drop(self, name: Hashable) -> None:
        """Forget one; it need not be there."""
        self._remove(name)

    def clear(self, *, pinned: bool = True) -> None:
        """Forget all; without `pinned`, all that the store has too."""
        kept = [] if pinned else [(name, e) for name, e in self._entries.items() if e.pinned]
        self._entries = OrderedDict(kept)
        self.bytes = sum(entry.size for _, entry in kept)

    def _remove(self, name: Hashable) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self.bytes -= entry.size


def _length(name: Hashable) -> int:
    return len(name) if isinstance(name, bytes) else len(str(name))
