"""A fixed window as one sidecar knows it: what the store granted, what is left, until when.

Over-admission is impossible because a token is granted once, spent once, and never after the
end of its window. Whoever loses what is written here only admits less.
"""

import math
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from plan2_sidecar.limits.model import RateLimitCheck, RateLimitDecision, Source, decision

if TYPE_CHECKING:
    from plan2_sidecar.limits.line import Line

# A lease is for what is asked within this time at the present rate.
DEMAND_SECONDS: Final = 1.0
# A rate seen over less than this is no rate.
SHORTEST_SAMPLE_SECONDS: Final = 0.005
# The store counts whole milliseconds.
TICK_SECONDS: Final = 0.001
# Two machines' clocks may run apart by 500 ppm, the most that NTP slews one.
DRIFT: Final = 0.0005


class Grant(NamedTuple):
    """The store's reply to `scripts.GRANT`; `window` is negative when none is under way."""

    tokens: int
    used: int
    ttl_ms: int
    window: int

    @classmethod
    def of(cls, reply: list[int]) -> Self:
        """From integers as they came."""
        return cls(*reply)


class Lease:
    """`used` of the window's limit were granted to somebody, `tokens` of them to us and unspent.

    `ends` is a moment by which the window surely lasts, `resets` one at which it is surely over,
    both on our own monotonic clock: the store's clock never matters.
    """

    __slots__ = (
        "_asked",
        "_asked_since",
        "ends",
        "line",
        "resets",
        "spent_at",
        "tokens",
        "used",
        "window",
    )

    def __init__(self) -> None:
        self.tokens = 0
        self.used = 0
        self.ends = self.resets = self.spent_at = -math.inf
        self.window = -1
        self.line: Line | None = None
        self._asked = 0
        self._asked_since = -math.inf

    def decide(self, check: RateLimitCheck, now: float) -> RateLimitDecision | None:
        """What can be said without the store; None when it has to be asked."""
        if now >= self.ends:
            return None
        needs = check.cost or 1
        if self.used - self.tokens + needs > check.limit:
            return self._denied(check, now, Source.DENY_CACHE)
        if needs > self.tokens:
            return None
        return self._allowed(check, now, Source.LEASE)

    def knows(self, check: RateLimitCheck, now: float) -> bool:
        """Whether `decide` would decide."""
        if now >= self.ends:
            return False
        return check.needs <= self.tokens or self.used - self.tokens + check.needs > check.limit

    def settle(self, check: RateLimitCheck, now: float) -> RateLimitDecision | None:
        """For one who waited for the reply just taken, which decided in the store's own time."""
        if self.used - self.tokens + check.needs > check.limit:
            return self._denied(check, now, Source.STORE)
        if check.takes > self.tokens:
            return None
        return self._allowed(check, now, Source.STORE)

    def take(self, grant: Grant, sent: float, now: float) -> None:
        """Take over a reply that was asked for at `sent` and came at `now`."""
        if grant.window != self.window:
            self.tokens = 0
        self.tokens += grant.tokens
        self.used = grant.used
        self.window = grant.window
        left = max(0, grant.ttl_ms) / 1000
        self.ends = sent + left * (1 - DRIFT) - TICK_SECONDS
        self.resets = now + left

    def forget(self) -> int:
        """Know nothing; the tokens that were left."""
        tokens, self.tokens = self.tokens, 0
        self.used, self.window = 0, -1
        self.ends = self.resets = -math.inf
        return tokens

    def demand(self, wanted: int, now: float) -> int:
        """How many tokens will be asked for soon, with the `wanted` that are asked for now."""
        seconds = max(now - self._asked_since, SHORTEST_SAMPLE_SECONDS)
        soon = math.ceil((self._asked + wanted) * DEMAND_SECONDS / seconds)
        self._asked, self._asked_since = 0, now
        return soon

    def _allowed(self, check: RateLimitCheck, now: float, source: Source) -> RateLimitDecision:
        taken = 0 if check.peek else check.cost
        if taken:
            self.tokens -= taken
            self._asked += taken
            self.spent_at = now
        hits = self.used - self.tokens
        # Written out: on a hot path `decision` would double the price.
        return RateLimitDecision(
            allowed=True,
            limit=check.limit,
            remaining=check.limit - hits,
            total_hits=hits,
            reset_ms=self._reset_ms(now),
            source=source,
        )

    def _denied(self, check: RateLimitCheck, now: float, source: Source) -> RateLimitDecision:
        reset_ms = self._reset_ms(now)
        return decision(
            check,
            allowed=False,
            remaining=check.limit - self.used + self.tokens,
            reset_ms=reset_ms,
            retry_ms=reset_ms,
            source=source,
        )

    def _reset_ms(self, now: float) -> int:
        return max(0, math.ceil((self.resets - now) * 1000)) if self.window >= 0 else 0
