"""What a cached thing is called in the store: `p2:c:<key>`, and `p2@3:c:<key>` from epoch 3 on.

A write that could not reach the store raises the epoch, so what was written before under the
older names is never read again. Rate limits have keys of their own and no epoch.
"""

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple


class Kind(StrEnum):
    """The letter after the prefix."""

    CACHE = "c"
    SESSION = "s"
    QUERY = "q"
    REGISTRY = "r"
    CONFIGURATION = "f"


class Key(NamedTuple):
    """One cached thing; a namespace is part of `name`."""

    kind: Kind
    name: str

    def at(self, epoch: int) -> bytes:
        """Its name in the store."""
        return _prefix(self.kind, epoch) + self.name.encode()


@lru_cache(maxsize=64)
def _prefix(kind: Kind, epoch: int) -> bytes:
    return f"p2@{epoch}:{kind.value}:".encode() if epoch else f"p2:{kind.value}:".encode()
