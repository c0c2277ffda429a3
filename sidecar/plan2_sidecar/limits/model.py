"""What a caller asks of a limit and what it is told: the types of the wire, decoded and encoded."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

# Keys of the store are kept short, and so are the names of counters in memory.
LONGEST_CLIENT_ID = 512
# Windows and limits whose product a double still holds to the millisecond.
LONGEST_WINDOW_MS = 31 * 24 * 3600 * 1000
HIGHEST_LIMIT = 1_000_000_000


class Algorithm(StrEnum):
    """How hits are counted; the value is part of the counter's key."""

    FIXED_WINDOW = "fixed-window"
    SLIDING_WINDOW = "sliding-window"
    GCRA = "gcra"


class OnStoreFailure(StrEnum):
    """What decides while the store cannot."""

    LOCAL = "local"
    OPEN = "open"
    CLOSED = "closed"


class Source(StrEnum):
    """What decided: tokens granted before, the store, a denial still in force, or no store."""

    LEASE = "lease"
    STORE = "store"
    DENY_CACHE = "deny_cache"
    FALLBACK = "fallback"


class RateLimitCheck(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """The body of POST /api/v2/rate-limit/check. The counter is (clientId, algorithm, windowMs).

    `peek`, or a `cost` of 0, asks and takes nothing. `exact` leaves nothing unspent here.
    """

    client_id: Annotated[str, Meta(min_length=1, max_length=LONGEST_CLIENT_ID)]
    window_ms: Annotated[int, Meta(ge=1, le=LONGEST_WINDOW_MS)] = 900_000
    limit: Annotated[int, Meta(ge=1, le=HIGHEST_LIMIT)] = 100
    cost: Annotated[int, Meta(ge=0, le=HIGHEST_LIMIT)] = 1
    algorithm: Algorithm = Algorithm.FIXED_WINDOW
    exact: bool = False
    peek: bool = False
    on_store_failure: OnStoreFailure = OnStoreFailure.LOCAL

    @property
    def takes(self) -> int:
        """What it may take from the counter: nothing when it looks, or asks for too much."""
        return 0 if self.peek or self.cost > self.limit else self.cost

    @property
    def needs(self) -> int:
        """What must be left for it to be allowed."""
        return self.cost or 1


class RateLimitDecision(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether the caller may go on. Times are milliseconds from now, `resetMs` to a full limit."""

    allowed: bool
    limit: int
    remaining: int
    total_hits: int
    reset_ms: int
    retry_after_ms: int | UnsetType = UNSET
    source: Source
    degraded: bool = False


def decision(
    check: RateLimitCheck,
    *,
    allowed: bool,
    remaining: int,
    reset_ms: int,
    retry_ms: int,
    source: Source,
    degraded: bool = False,
) -> RateLimitDecision:
    """What to tell the caller; `remaining` is counted after what this check took."""
    remaining = max(0, remaining)
    hits = check.limit - remaining
    if allowed:
        return RateLimitDecision(
            allowed=True,
            limit=check.limit,
            remaining=remaining,
            total_hits=hits,
            reset_ms=reset_ms,
            source=source,
            degraded=degraded,
        )
    return RateLimitDecision(
        allowed=False,
        limit=check.limit,
        remaining=remaining,
        total_hits=hits + check.needs,
        reset_ms=reset_ms,
        # More than the limit is never admitted, however long one waits.
        retry_after_ms=UNSET if check.needs > check.limit else max(1, retry_ms),
        source=source,
        degraded=degraded,
    )
