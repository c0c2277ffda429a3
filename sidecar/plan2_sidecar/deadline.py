"""A deadline is set once at the door; every wait below it spends what remains.

Clocks are passed in: seconds, monotonic.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from plan2_sidecar.errors import DeadlineExceeded

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on `clock`, in seconds."""

    at: float
    clock: Clock = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Clock = time.monotonic) -> Self:
        """The moment `seconds` from now."""
        return cls(clock() + seconds, clock)

    def remaining(self) -> float:
        """Seconds left, more than zero; raises DeadlineExceeded."""
        seconds = self.at - self.clock()
        if seconds <= 0:
            raise DeadlineExceeded("the time given for this call is over")
        return seconds

    def earlier(self, seconds: float) -> "Deadline":
        """The sooner of this deadline and `seconds` from now: a wait with its own cap."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Cancel the body at the deadline and raise DeadlineExceeded in its place."""
        try:
            async with asyncio.timeout(self.remaining()) as scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise DeadlineExceeded("the time given for this call is over") from None
