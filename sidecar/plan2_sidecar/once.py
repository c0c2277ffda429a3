"""Somebody who waits without a task, and is told once: an outcome, or that the time is over.

It stands where a future would, among those who wait for replies or in a line. It costs less.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from plan2_sidecar import deadline
from plan2_sidecar.errors import DeadlineExceeded

LOG: Final = logging.getLogger(__name__)


class Once:
    """`told` is called once, in the loop: with an outcome, or with what was raised instead.

    That is DeadlineExceeded at `at`, on the loop's clock.
    """

    __slots__ = ("_told", "at")

    def __init__(
        self, seconds: float, told: Callable[[Any], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._told: Callable[[Any], None] | None = told
        self.at = loop.time() + seconds
        deadline.watch(self, loop)

    def done(self) -> bool:
        """Nobody waits any more."""
        return self._told is None

    def set_result(self, result: Any, /) -> None:
        """It is there."""
        self._tell(result)

    def set_exception(self, exception: BaseException, /) -> None:
        """There will be none."""
        self._tell(exception)

    def expire(self) -> None:
        """The time is over."""
        self._tell(DeadlineExceeded("the time given for this call is over"))

    def leave(self) -> None:
        """Nobody wants to hear it."""
        self._told = None
        deadline.unwatch(self)

    def _tell(self, outcome: Any) -> None:
        told, self._told = self._told, None
        assert told is not None
        deadline.unwatch(self)
        try:
            told(outcome)
        except Exception:
            # Not the fault of those who wait behind it.
            LOG.exception("an outcome could not be told")
