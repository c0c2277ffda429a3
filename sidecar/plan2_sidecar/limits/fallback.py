"""Decisions while the store cannot be asked; each says that it is degraded.

`local` counts a fixed window here, of this sidecar's share of the limit, whatever the algorithm.
"""

import math
from collections import OrderedDict
from typing import Final

from plan2_sidecar.deadline import Clock
from plan2_sidecar.limits.model import (
    Algorithm,
    OnStoreFailure,
    RateLimitCheck,
    RateLimitDecision,
    Source,
    decision,
)

MOST_COUNTERS: Final = 20_000
# When to try again where only the store's return would help.
RETRY_MS: Final = 1000

_Key = tuple[str, Algorithm, int]


class Fallback:
    """What was admitted during an outage, by counter."""

    def __init__(self, clock: Clock, most: int = MOST_COUNTERS) -> None:
        self._clock = clock
        self._most = most
        self._counters: OrderedDict[_Key, tuple[int, float]] = OrderedDict()

    def decide(self, check: RateLimitCheck, sidecars: int) -> RateLimitDecision:
        """As `onStoreFailure` says, with `sidecars` of us by the last count."""
        match check.on_store_failure:
            case OnStoreFailure.OPEN:
                possible = check.needs <= check.limit
                return self._told(check, possible, check.limit - check.takes, 0, 0)
            case OnStoreFailure.CLOSED:
                return self._told(check, False, 0, RETRY_MS, RETRY_MS)
            case OnStoreFailure.LOCAL:
                return self._share(check, max(1, check.limit // sidecars))

    def _share(self, check: RateLimitCheck, share: int) -> RateLimitDecision:
        now = self._clock()
        key = (check.client_id, check.algorithm, check.window_ms)
        hits, ends = self._counters.get(key, (0, -math.inf))
        if now >= ends:
            hits, ends = 0, now + check.window_ms / 1000
        allowed = hits + check.needs <= share
        if allowed and check.takes:
            hits += check.takes
            self._counters[key] = hits, ends
            self._counters.move_to_end(key)
            if len(self._counters) > self._most:
                self._counters.popitem(last=False)
        reset_ms = math.ceil((ends - now) * 1000) if hits else 0
        # A cost beyond the share waits for the store.
        retry_ms = reset_ms or RETRY_MS
        return self._told(check, allowed, share - hits, reset_ms, retry_ms)

    def _told(
        self, check: RateLimitCheck, allowed: bool, remaining: int, reset_ms: int, retry_ms: int
    ) -> RateLimitDecision:
        return decision(
            check,
            allowed=allowed,
            remaining=remaining,
            reset_ms=reset_ms,
            retry_ms=retry_ms,
            source=Source.FALLBACK,
            degraded=True,
        )
