"""A deadline is set once at the door; every wait below it spends what remains.

Clocks are passed in: seconds, monotonic.
"""

import asyncio
import time
from collections.abc import Callable
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

    def enforced(self) -> "_Enforced":
        """Cancel the body at the deadline and raise DeadlineExceeded in its place.

        `with` and `async with` do the same; the former costs less.
        """
        return _Enforced(self)


class _Enforced:
    """asyncio.timeout does the same in several times the CPU, and every query is in two."""

    __slots__ = ("_cancelling", "_deadline", "_expired", "_handle", "_task")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._expired = False

    def __enter__(self) -> None:
        seconds = self._deadline.remaining()
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline is enforced on a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._handle = loop.call_later(seconds, self._expire)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._handle.cancel()
        if not self._expired:
            return
        # Whoever cancelled the task besides us is still to be obeyed.
        mine = self._task.uncancel() <= self._cancelling
        if mine and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise DeadlineExceeded("the time given for this call is over") from None

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.__exit__(kind, *rest)

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()
