"""What the caches answer."""

from dataclasses import dataclass
from typing import Literal

from plan2_contract.engines import Engine


@dataclass(frozen=True, slots=True)
class Found:
    """A value from `l1`, `dragonflydb`, `redis`, or the engine that holds the truth.

    `ttl_seconds` is what is left of it, rounded up; None where it has no end.
    """

    value: bytes
    ttl_seconds: int | None
    source: str
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A write that holds; `degraded`: only this sidecar has the value, the others know none."""

    degraded: bool = False
    source: str = Engine.DRAGONFLYDB.value


@dataclass(frozen=True, slots=True)
class Loaded:
    """A value that was read through. `source` is None where the loader gave it."""

    value: bytes
    state: Literal["hit", "miss", "stale"]
    degraded: bool = False
    source: str | None = None
