"""Many who want one thing at once cause one call, and all get its answer.

The call lives as long as anybody waits for it. Who has more time left than the one who began it
begins anew when that one's time is over.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any

from plan2_sidecar.deadline import Deadline
from plan2_sidecar.errors import DeadlineExceeded


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Any]
    waiting: int = 0
    alone: bool = False


class Flights:
    """The calls under way, by what they are for."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight] = {}

    async def join(
        self, name: Hashable, begin: Callable[[], Coroutine[Any, Any, Any]], deadline: Deadline
    ) -> Any:
        """What `begin()`, or the call for `name` that is under way, returns or raises.

        Raises DeadlineExceeded when the caller's own time is over.
        """
        while True:
            flight = self._flights.get(name)
            joined = flight is not None
            if flight is None:
                flight = self._begin(name, begin)
            try:
                return await self._wait(flight, deadline)
            except DeadlineExceeded:
                deadline.remaining()
                if not joined:
                    raise

    def begin(self, name: Hashable, begin: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Begin the call unless it is under way; it goes on with nobody waiting."""
        if name not in self._flights:
            self._begin(name, begin).alone = True

    def forget(self, name: Hashable) -> None:
        """Who comes from now on must not get the answer of the call under way."""
        self._flights.pop(name, None)

    def clear(self) -> None:
        """`forget` all of them."""
        self._flights.clear()

    def _begin(self, name: Hashable, begin: Callable[[], Coroutine[Any, Any, Any]]) -> _Flight:
        flight = self._flights[name] = _Flight(asyncio.create_task(begin()))

        def landed(task: asyncio.Task[Any]) -> None:
            if self._flights.get(name) is flight:
                del self._flights[name]
            if not task.cancelled():
                task.exception()

        flight.task.add_done_callback(landed)
        return flight

    async def _wait(self, flight: _Flight, deadline: Deadline) -> Any:
        flight.waiting += 1
        try:
            async with deadline.enforced():
                return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.alone:
                # Done already, or nobody wants it any more.
                flight.task.cancel()
