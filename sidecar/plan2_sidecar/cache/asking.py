"""Commands under way on the link without a task, behind the guard.

They stand among the replies that the connection waits for, as a future would.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from plan2_sidecar.engines.dragonflydb_errors import checked
from plan2_sidecar.errors import Problem
from plan2_sidecar.fleet import Passage
from plan2_sidecar.once import Once

Replies = list[Any]
Told = Callable[[Replies | Exception], None]


class Asking(Once):
    """Told all replies, in the order of the commands, or the Problem."""

    __slots__ = ("_count", "_passage", "_replies")

    def __init__(
        self,
        passage: Passage,
        count: int,
        seconds: float,
        told: Told,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(seconds, told, loop)
        self._passage = passage
        self._count = count
        self._replies: Replies = []

    def set_result(self, result: Any, /) -> None:
        """One reply."""
        replies = self._replies
        replies.append(result)
        if len(replies) < self._count:
            return
        try:
            for each in replies:
                if isinstance(each, Exception):
                    checked(each)
        except Problem as problem:
            self._tell(problem)
        else:
            self._tell(replies)

    def _tell(self, outcome: Replies | Problem) -> None:
        self._passage.over(outcome if isinstance(outcome, Problem) else None)
        super()._tell(outcome)
