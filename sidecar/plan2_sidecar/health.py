"""What is known about an engine: up, down or unknown, and how fast it has been.

Calls tell it as they go; `fleet` pings an engine that has not been called lately.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from plan2_contract.engines import Engine
from plan2_sidecar.deadline import Clock
from plan2_sidecar.errors import (
    BreakerOpen,
    BulkheadFull,
    DeadlineExceeded,
    Problem,
    QueryRejected,
    StoreFull,
    Unavailable,
)

REMEMBERED_CALLS = 256


class State(StrEnum):
    """As the API names it."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


# Looked up once: every answer says it.
_UP: Final = State.UP


class Overall(StrEnum):
    """All engines together."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass
class Health:
    """One engine's; `last_ok` is wall-clock seconds, `told_at` monotonic ones."""

    engine: Engine
    clock: Clock
    wall_clock: Clock
    state: State = State.UNKNOWN
    version: str | None = None
    error: str | None = None
    last_ok: float | None = None
    told_at: float | None = None
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED_CALLS))

    def answered(self, seconds: float) -> None:
        """A call came back with an answer after so many seconds."""
        self._seconds.append(seconds)
        self.well()

    def well(self) -> None:
        """The engine is answering."""
        self.state = _UP
        self.error = None
        self.told_at = self.clock()
        self.last_ok = self.wall_clock()

    def failed(self, problem: Problem) -> None:
        """A call or ping ended so; only what speaks about the engine counts."""
        match problem:
            case BreakerOpen() | BulkheadFull():
                return
            case QueryRejected() | StoreFull():
                self.well()
            case Unavailable():
                self.ill(problem.detail)
            case DeadlineExceeded():
                # A slow call is no proof: the next look pings.
                self.told_at = None

    def ill(self, error: str) -> None:
        """The engine is not answering."""
        self.state, self.error, self.told_at = State.DOWN, error, self.clock()

    def fresh(self, seconds: float) -> bool:
        """Whether the state was learnt within so many seconds."""
        return self.told_at is not None and self.clock() - self.told_at < seconds

    def latency_ms(self) -> dict[str, float] | None:
        """p50 and p99 of the last calls; None before the first."""
        if not self._seconds:
            return None
        ordered = sorted(self._seconds)
        return {
            "p50Ms": round(ordered[len(ordered) // 2] * 1000, 3),
            "p99Ms": round(ordered[(len(ordered) * 99) // 100] * 1000, 3),
        }


def overall(states: list[State]) -> Overall:
    """ok: every configured engine is up; down: none is; else degraded."""
    up = states.count(State.UP)
    if up == 0:
        return Overall.DOWN
    return Overall.OK if up == len(states) else Overall.DEGRADED
