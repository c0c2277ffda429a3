"""How many calls may be tried a second time: a tenth of all, so that retries never pile up."""

import random
from collections.abc import Callable

SHARE = 0.1
MOST_SAVED = 10.0
# An engine that was hardly ever called may still lose its connections at once.
SAVED_AT_FIRST = 3.0
SHORTEST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.1


def pause(chance: Callable[[], float] = random.random) -> float:
    """Seconds to wait before a second attempt: callers that failed together come back apart."""
    return SHORTEST_PAUSE_SECONDS + chance() * (LONGEST_PAUSE_SECONDS - SHORTEST_PAUSE_SECONDS)


class RetryBudget:
    """One engine's. Every call saves a little, every second attempt spends a whole one."""

    def __init__(self) -> None:
        self._saved = SAVED_AT_FIRST

    def called(self) -> None:
        """A call was made for the first time."""
        if self._saved < MOST_SAVED:
            self._saved = min(self._saved + SHARE, MOST_SAVED)

    def spend(self) -> bool:
        """Whether a second attempt is allowed; it is paid for when it is."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
