"""A check that waits in line without a task.

It stands in a `Line` as the future of one that is awaited would.
"""

import asyncio
from collections.abc import Callable

from plan2_sidecar.limits.model import RateLimitDecision
from plan2_sidecar.once import Once

Told = Callable[[RateLimitDecision | Exception], None]


class Waiting(Once):
    """Told the decision, or what stood in its way, unless it leaves before."""

    __slots__ = ()

    def __init__(self, seconds: float, told: Told) -> None:
        super().__init__(seconds, told, asyncio.get_running_loop())

    def set_exception(self, exception: BaseException, /) -> None:
        """The store could not be asked."""
        failed = isinstance(exception, Exception)
        self._tell(exception if failed else RuntimeError(str(exception)))

    def cancel(self) -> None:
        """Whoever asked the store has ended first."""
        self.expire()
