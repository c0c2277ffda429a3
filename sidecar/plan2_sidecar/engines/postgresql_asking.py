"""One prepared statement under way, told by a callback: a task for it would cost more than it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg

from plan2_sidecar import deadline
from plan2_sidecar.engines import postgresql_internals as internals
from plan2_sidecar.errors import DeadlineExceeded

Over = Callable[["list[asyncpg.Record] | BaseException"], None]


class Asking:
    """`over` is called once, in the loop: with the rows, or with what was raised.

    That is DeadlineExceeded at `at`, on the loop's clock, and CancelledError behind `cancel`.
    """

    __slots__ = ("_expired", "_over", "_rows", "_waiter", "at")

    def __init__(
        self,
        rows: internals.Rows,
        seconds: float,
        loop: asyncio.AbstractEventLoop,
        over: Over,
    ) -> None:
        """Send it; what this raises was raised before anything was sent."""
        self._rows = rows
        self._over: Over | None = over
        self._expired = False
        self.at = loop.time() + seconds
        self._waiter: asyncio.Future[Any] = rows.send(None)
        self._waiter.add_done_callback(self._received)
        deadline.watch(self, loop)

    def cancel(self) -> None:
        """Nobody wants it any more: the server is told to stop."""
        self._waiter.cancel()

    def expire(self) -> None:
        """The time is over."""
        self._expired = True
        self._waiter.cancel()

    def _received(self, _: asyncio.Future[Any]) -> None:
        deadline.unwatch(self)
        outcome: list[asyncpg.Record] | BaseException
        try:
            self._rows.send(None)
            outcome = asyncpg.InternalClientError("asyncpg waits for more than one answer")
        except StopIteration as answered:
            outcome = answered.value
        except asyncio.CancelledError as cancelled:
            outcome = cancelled
            if self._expired:
                outcome = DeadlineExceeded("the time given for this call is over")
        except BaseException as error:  # noqa: BLE001 - it is told
            outcome = error
        over, self._over = self._over, None
        assert over is not None
        over(outcome)
