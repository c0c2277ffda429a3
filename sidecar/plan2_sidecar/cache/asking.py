"""Commands under way on the link, told by a callback: a task for them would cost more than they.

It stands among the replies that the connection waits for, as a future would.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from plan2_sidecar import deadline
from plan2_sidecar.engines.dragonflydb_errors import checked
from plan2_sidecar.errors import DeadlineExceeded, Problem
from plan2_sidecar.fleet import Passage

LOG: Final = logging.getLogger(__name__)

Replies = list[Any]
Told = Callable[[Replies | Exception], None]


class Asking:
    """`told` is called once, in the loop: with all replies, or with the Problem.

    `at` is the loop's time at which it is given up.
    """

    __slots__ = ("_count", "_passage", "_replies", "_told", "at")

    def __init__(
        self,
        passage: Passage,
        count: int,
        seconds: float,
        told: Told,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._passage = passage
        self._count = count
        self._replies: Replies = []
        self._told: Told | None = told
        self.at = loop.time() + seconds
        deadline.watch(self, loop)

    def done(self) -> bool:
        """Nobody waits for the reply any more."""
        return self._told is None

    def set_result(self, reply: Any) -> None:
        """One reply, in the order of the commands."""
        replies = self._replies
        replies.append(reply)
        if len(replies) < self._count:
            return
        try:
            for each in replies:
                if isinstance(each, Exception):
                    checked(each)
        except Problem as problem:
            self._end(problem)
        else:
            self._end(None)

    def set_exception(self, problem: Problem) -> None:
        """The connection ended first."""
        self._end(problem)

    def expire(self) -> None:
        """The time is over."""
        self._end(DeadlineExceeded("the time given for this call is over"))

    def _end(self, problem: Problem | None) -> None:
        told, self._told = self._told, None
        assert told is not None
        deadline.unwatch(self)
        self._passage.over(problem)
        try:
            told(self._replies if problem is None else problem)
        except Exception:
            # Not the connection's fault, which others wait on.
            LOG.exception("a reply of the store could not be told")
