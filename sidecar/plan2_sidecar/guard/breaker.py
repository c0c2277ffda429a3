"""The circuit breaker: closed until an engine keeps failing, open for a rest, then tried once.

A rejected query is never a failure; `guard` decides what is. Clock and random are passed in.
"""

import random
from collections.abc import Callable
from enum import StrEnum

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Clock
from plan2_sidecar.errors import BreakerOpen

WINDOW_SECONDS = 10
MINIMUM_CALLS = 5
FAILURE_SHARE = 0.5
UNREACHABLE_IN_A_ROW = 5
FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 30.0
# Sidecars that saw the same failure must not all come back in the same instant.
JITTER = 0.2


class State(StrEnum):
    """What the breaker does with the next call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """One engine's breaker. Each `admit()` is followed by exactly one of the outcomes."""

    def __init__(
        self, engine: Engine, clock: Clock, chance: Callable[[], float] = random.random
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._chance = chance
        # [calls, failures] by second; the last of them is also at hand.
        self._buckets: dict[int, list[int]] = {}
        self._second = -1
        self._bucket = [0, 0]
        self._unreachable = 0
        self._rest = FIRST_REST_SECONDS
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        """Half-open from the end of the rest until the probe's outcome."""
        if self._open_until is None:
            return State.CLOSED
        return State.OPEN if self._clock() < self._open_until else State.HALF_OPEN

    def admit(self) -> bool:
        """Let the call pass, or raise BreakerOpen with the time to wait.

        True makes the call the probe: its outcome opens or closes the breaker.
        """
        if self._open_until is None:
            return False
        wait = self._open_until - self._clock()
        if wait > 0 or self._probing:
            raise BreakerOpen(
                f"{self._engine} has been failing; it is tried again shortly",
                database=self._engine,
                retry_after_ms=max(100, int(wait * 1000)),
            )
        self._probing = True
        return True

    def succeeded(self) -> None:
        """The engine answered, were it only to reject the query."""
        self._unreachable = 0
        if self._open_until is not None:
            self.close()
        else:
            second = int(self._clock())
            if second != self._second:
                self._turn_to(second)
            self._bucket[0] += 1

    def failed(self, *, unreachable: bool, probe: bool = False) -> None:
        """The engine did not answer; `unreachable` when it could not even be connected to."""
        if probe:
            self._probing = False
            self._rest = min(self._rest * 2, LONGEST_REST_SECONDS)
            self._open()
            return
        self._unreachable = self._unreachable + 1 if unreachable else 0
        self._turn_to(int(self._clock()))
        bucket = self._bucket
        bucket[0] += 1
        bucket[1] += 1
        if self._open_until is None and (
            self._unreachable >= UNREACHABLE_IN_A_ROW or self._mostly_failing()
        ):
            self._open()

    def abandoned(self, *, probe: bool = False) -> None:
        """The call ended without saying anything about the engine."""
        if probe:
            self._probing = False

    def close(self) -> None:
        """The engine is known to be well: forget what was."""
        self._open_until = None
        self._probing = False
        self._rest = FIRST_REST_SECONDS
        self._unreachable = 0
        self._buckets.clear()
        self._second = -1

    def _open(self) -> None:
        self._open_until = self._clock() + self._rest * (1 + JITTER * self._chance())

    def _mostly_failing(self) -> bool:
        calls = sum(bucket[0] for bucket in self._buckets.values())
        failures = sum(bucket[1] for bucket in self._buckets.values())
        return calls >= MINIMUM_CALLS and failures >= calls * FAILURE_SHARE

    def _turn_to(self, second: int) -> None:
        """Have this second's [calls, failures] at hand; a new one drops what left the window."""
        bucket = self._buckets.get(second)
        if bucket is None:
            for old in [at for at in self._buckets if at <= second - WINDOW_SECONDS]:
                del self._buckets[old]
            bucket = self._buckets[second] = [0, 0]
        self._second, self._bucket = second, bucket
