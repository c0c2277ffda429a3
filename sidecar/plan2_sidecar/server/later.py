"""A reply that is still to come: told once, by a task or, where none is needed, by a callback.

A task for each call costs more than many calls do, so what waits for nothing but one answer of
an engine is told by whoever reads that answer.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from plan2_sidecar.api.reply import Reply

Outcome = Reply | BaseException


class Later:
    """Whoever makes it tells it, or has it `become` a task that does.

    Once cancelled it is told in vain: the caller has gone.
    """

    __slots__ = ("_cancel", "_outcome", "_task", "_then", "_waited")

    def __init__(self) -> None:
        self._cancel: Callable[[], None] | None = None
        self._outcome: Outcome | None = None
        self._then: Callable[[Outcome], None] | None = None
        self._task: asyncio.Task[Reply] | None = None
        self._waited: asyncio.Event | None = None

    def tell(self, outcome: Outcome) -> None:
        """The reply, or what stands in its way."""
        then, self._then, self._outcome = self._then, None, outcome
        self._cancel = None
        if self._waited is not None:
            self._waited.set()
        if then is not None:
            then(outcome)

    def ends_by(self, cancel: Callable[[], None]) -> None:
        """Call it when the caller has gone, unless it was told or became a task before."""
        self._cancel = cancel

    def become(self, work: Coroutine[Any, Any, Reply]) -> None:
        """Be told by a task, which ends when the caller has gone."""
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._over)

    def then(self, told: Callable[[Outcome], None]) -> None:
        """Call `told` with the outcome, at once where it is there."""
        if self._outcome is not None:
            told(self._outcome)
        else:
            self._then = told

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._then = None
        if self._task is not None:
            self._task.cancel()
        elif self._cancel is not None:
            self._cancel()

    async def over(self) -> None:
        """Return when it was told."""
        if self._outcome is None:
            self._waited = self._waited or asyncio.Event()
            await self._waited.wait()

    def _over(self, task: asyncio.Task[Reply]) -> None:
        if not task.cancelled():
            self.tell(task.exception() or task.result())
