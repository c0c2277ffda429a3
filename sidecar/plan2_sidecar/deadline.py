"""A deadline is set once at the door; every wait below it spends what remains.

Clocks are passed in: seconds, monotonic.
"""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, Protocol, Self

import msgspec

from plan2_sidecar.errors import DeadlineExceeded

Clock = Callable[[], float]


class Deadline(msgspec.Struct, frozen=True):
    """A moment on `clock`, in seconds."""

    at: float
    clock: Clock = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Clock = time.monotonic) -> Self:
        """The moment `seconds` from now."""
        return cls(clock() + seconds, clock)

    def remaining(self, slack_seconds: float = 0.0) -> float:
        """Seconds left and `slack_seconds`, more than zero; raises DeadlineExceeded."""
        seconds = self.at - self.clock() + slack_seconds
        if seconds <= 0:
            raise DeadlineExceeded("the time given for this call is over")
        return seconds

    def earlier(self, seconds: float) -> "Deadline":
        """The sooner of this deadline and `seconds` from now: a wait with its own cap."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)

    def enforced(self, slack_seconds: float = 0.0) -> "_Enforced":
        """Cancel the body at the deadline and raise DeadlineExceeded in its place.

        `slack_seconds` after it where another enforces it too, and better. `with` and
        `async with` do the same; the former costs less.
        """
        return _Enforced(self, slack_seconds)


class Expiring(Protocol):
    """What ends at `at`, on the loop's clock, unless it is over before."""

    at: float

    def expire(self) -> None:
        """The time is over."""
        ...


class _Watch:
    """One timer of a loop for all its deadlines, set to the earliest that was seen.

    Nearly every call ends long before its deadline. A timer for each would be made and thrown
    away for nothing, which costs more than all else that is done about deadlines.
    """

    __slots__ = ("_armed_at", "_handle", "loop", "pending")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pending: set[Expiring] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_at = math.inf

    def add(self, expiring: Expiring) -> None:
        """Expire it at `expiring.at` unless it is discarded before."""
        self.pending.add(expiring)
        if expiring.at < self._armed_at:
            self._arm(expiring.at)

    def _arm(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed_at = at
        self._handle = self.loop.call_at(at, self._look)

    def _look(self) -> None:
        self._handle, self._armed_at = None, math.inf
        now = self.loop.time() + _TICK_SECONDS
        for expiring in [each for each in self.pending if each.at <= now]:
            self.pending.discard(expiring)
            expiring.expire()
        if self.pending:
            self._arm(min(each.at for each in self.pending))


# A loop that counts whole milliseconds rounds.
_TICK_SECONDS: Final = 0.0005
# The watch of the loop that enforced a deadline last: a process has one, tests have many.
_watch: _Watch | None = None


def _watch_of(loop: asyncio.AbstractEventLoop) -> _Watch:
    global _watch
    watch = _watch
    if watch is None or watch.loop is not loop:
        watch = _watch = _Watch(loop)
    return watch


def watch(expiring: Expiring, loop: asyncio.AbstractEventLoop) -> None:
    """Have it expire at its time, in the loop that runs, unless `unwatch` comes before."""
    # Given, for to ask which loop runs is to ask the kernel which process this is.
    _watch_of(loop).add(expiring)


def unwatch(expiring: Expiring) -> None:
    """It is over."""
    if _watch is not None:
        _watch.pending.discard(expiring)


class _Enforced:
    """asyncio.timeout does the same in several times the CPU, and every query is in two."""

    __slots__ = ("_cancelling", "_deadline", "_expired", "_slack", "_task", "_watch", "at")

    def __init__(self, deadline: Deadline, slack_seconds: float) -> None:
        self._deadline = deadline
        self._slack = slack_seconds
        self._expired = False

    def __enter__(self) -> None:
        seconds = self._deadline.remaining(self._slack)
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline is enforced on a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._watch = _watch_of(loop)
        self.at = loop.time() + seconds
        self._watch.add(self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._watch.pending.discard(self)
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

    def expire(self) -> None:
        """The time is over."""
        self._expired = True
        self._task.cancel()
