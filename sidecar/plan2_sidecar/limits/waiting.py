"""A check that waits in line without a task, told by a callback: it costs less than the task would.

It stands in a `Line` as the future of one that is awaited would.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from plan2_sidecar import deadline
from plan2_sidecar.errors import DeadlineExceeded
from plan2_sidecar.limits.model import RateLimitDecision

LOG: Final = logging.getLogger(__name__)

Told = Callable[[RateLimitDecision | Exception], None]


class Waiting:
    """`told` is called once, in the loop, unless `leave` comes before.

    With the decision, or with what stood in its way: DeadlineExceeded at `at`, on the loop's
    clock.
    """

    __slots__ = ("_told", "at")

    def __init__(self, seconds: float, told: Told) -> None:
        loop = asyncio.get_running_loop()
        self._told: Told | None = told
        self.at = loop.time() + seconds
        deadline.watch(self, loop)

    def done(self) -> bool:
        """Nobody waits any more."""
        return self._told is None

    def set_result(self, decision: RateLimitDecision) -> None:
        """It was decided."""
        self._end(decision)

    def set_exception(self, error: BaseException) -> None:
        """The store could not be asked."""
        self._end(error if isinstance(error, Exception) else RuntimeError(str(error)))

    def cancel(self) -> None:
        """Whoever asked the store has ended first."""
        self.expire()

    def expire(self) -> None:
        """The time is over."""
        self._end(DeadlineExceeded("the time given for this call is over"))

    def leave(self) -> None:
        """Nobody wants to hear it."""
        self._told = None
        deadline.unwatch(self)

    def _end(self, outcome: RateLimitDecision | Exception) -> None:
        told, self._told = self._told, None
        assert told is not None
        deadline.unwatch(self)
        try:
            told(outcome)
        except Exception:
            # Not the fault of those who stand behind it in line.
            LOG.exception("a decision could not be told")
