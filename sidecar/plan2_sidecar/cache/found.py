"""What the caches answer."""

from typing import Literal, NamedTuple

from plan2_contract.engines import Engine


class Found(NamedTuple):
    """A value from `l1`, `dragonflydb`, `redis`, or the engine that holds the truth.

    `ttl_seconds` is what is left of it, rounded up; None where it has no end.
    """

    value: bytes
    ttl_seconds: int | None
    source: str
    degraded: bool = False


class Written(NamedTuple):
    """A write that holds; `degraded`: only this sidecar has the value, the others know none."""

    degraded: bool = False
    source: str = Engine.DRAGONFLYDB.value


class Loaded(NamedTuple):
    """A value that was read through. `source` is None where the loader gave it."""

    value: bytes
    state: Literal["hit", "miss", "stale"]
    degraded: bool = False
    source: str | None = None
